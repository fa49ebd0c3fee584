"""Options of fairseq on data and generation whose values its own code does not understand."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from admin_nmt.errors import UsageError


@pytest.fixture
def two_of_each(data_bin: Path, tmp_path: Path) -> Path:
    """DATA with `train`, `train1`, `valid` and `valid1`."""
    for path in data_bin.glob("*.*"):
        shutil.copy(path, tmp_path)
    for name in ("train", "valid"):
        for path in data_bin.glob(f"{name}.*"):
            shutil.copy(path, tmp_path / path.name.replace(name, f"{name}1", 1))
    return tmp_path


def training(data: Path, valid_subset: str) -> Any:
    dataset = SimpleNamespace(
        ignore_unused_valid_subsets=False, combine_valid_subsets=False,
        disable_validation=False, valid_subset=valid_subset,
    )  # fmt: skip
    return SimpleNamespace(dataset=dataset, task=SimpleNamespace(data=str(data)))


def test_validation_sets_are_compared_by_their_names(two_of_each: Path) -> None:
    from fairseq.data.data_utils import raise_if_valid_subsets_unintentionally_ignored as check

    check(training(two_of_each, "valid,valid1"))
    with pytest.raises(UsageError, match=r"\['valid1'\] will be ignored.*--valid-subset valid,"):
        check(training(two_of_each, "valid"))


def test_training_sets_of_one_folder_are_joined(two_of_each: Path, parse: Any, task: Any) -> None:
    from fairseq.tasks.translation import TranslationTask

    def pairs(folder: Path, upsample_primary: int) -> int:
        cfg = parse().task
        cfg.data, cfg.upsample_primary = str(folder), upsample_primary
        own = TranslationTask.setup_task(cfg)
        own.load_dataset("train", combine=True)
        return len(own.dataset("train"))

    single = len(task.dataset("train"))
    assert pairs(two_of_each, -1) == 2 * single
    assert pairs(two_of_each, 3) == 4 * single
    with pytest.raises(UsageError, match="--upsample-primary 0"):
        pairs(two_of_each, 0)


def test_unknown_words_are_replaced_without_a_dictionary(tmp_path: Path) -> None:
    from fairseq import utils

    (tmp_path / "dict.txt").write_text("Haus house\n")
    assert utils.load_align_dict("@@ ") == {} and utils.load_align_dict("") == {}
    assert utils.load_align_dict(None) is None
    assert utils.load_align_dict(str(tmp_path / "dict.txt")) == {"Haus": "house"}


@pytest.mark.parametrize("value", ["{", "[1]", "dropout=0.1", "{'dropout': no_name}"])
def test_overrides_that_are_no_dictionary_are_one_line(value: str, data_bin: Path) -> None:
    from fairseq import options

    words = [str(data_bin), "--path", "absent.pt", "--model-overrides"]
    options.parse_args_and_arch(options.get_generation_parser(), [*words, "{'dropout': 0.1}"])
    with pytest.raises(UsageError, match="give a dictionary as Python writes it"):
        options.parse_args_and_arch(options.get_generation_parser(), [*words, value])


def test_data_of_the_formats_before_mmap_is_read_from_any_place(tmp_path: Path) -> None:
    """fairseq reads what `--dataset-impl lazy` wrote through a cache, which somebody has to fill."""
    from fairseq.data import indexed_dataset

    stem = str(tmp_path / "train.de-en.de")
    builder = indexed_dataset.make_builder(f"{stem}.bin", "lazy")
    for length in range(1, 6):
        builder.add_item(torch.arange(4, 4 + length, dtype=torch.int32))
    builder.finalize(f"{stem}.idx")
    assert indexed_dataset.infer_dataset_impl(stem) == "cached"
    data = indexed_dataset.make_dataset(stem, "cached", fix_lua_indexing=True)
    data.prefetch([0, 2])
    assert [data[np.int64(place)].tolist()[-1] for place in (3, 0, 4)] == [7, 4, 8]
    with pytest.raises(IndexError):
        data[5]
