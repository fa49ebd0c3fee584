"""Resumed runs are the uninterrupted ones, at any update of any epoch; finished ones stay so."""

import logging
import math
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.host.data import DataError
from admin_nmt.host.exact_resume import position_on
from tests.support.in_process import run_fairseq
from tests.support.training import COMMON, require_equal, train, weights

#: Of about five epochs of eight batches.
UPDATES = 38
SETTINGS = {
    "plain": (),
    "update-freq": ("--update-freq", "2"),
    "buckets": ("--num-batch-buckets", "2"),
    "curriculum": ("--curriculum", "2"),
    "rdrop": ("--criterion", "label_smoothed_cross_entropy_rdrop"),
    "realformer": ("--residual-attention", "all", "--init-type", "admin-log"),
    "bf16": ("--bf16",),
    "workers": ("--num-workers", "1"),
    "epoch-batches": ("--update-epoch-batch-itr", "True"),
}


def stops(seed: str) -> list[int]:
    """Updates after which a run is ended: inside the first epoch, and anywhere later."""
    rng = random.Random(seed)
    return [rng.randint(2, 6), rng.randint(9, UPDATES - 1)]


#: Resumed by tests/criterions/test_training_with_rdrop.py, tests/train/test_realformer_training.py and
#: test_subword_sampling.py too.
RESUMED_ELSEWHERE = ("rdrop", "realformer", "workers", "buckets")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name in RESUMED_ELSEWHERE))
        for name in SETTINGS
    ],
)
def test_resumed_in_any_epoch(name: str, data_bin: Path, tmp_path: Path) -> None:
    options = SETTINGS[name]
    train(data_bin, tmp_path / "whole", UPDATES, *options)
    for stop in (*stops(name), UPDATES):
        train(data_bin, tmp_path / "parts", stop, *options)
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_the_clock_of_a_resumed_run_counts_from_its_start(data_bin: Path, tmp_path: Path) -> None:
    from fairseq.logging import metrics

    for updates in (3, 5):  # within the first epoch
        train(data_bin, tmp_path, updates)
        clock = metrics.get_meter("default", "wall")
        assert clock.elapsed_time > 0 and clock.sum == 0


def test_resumed_at_the_end_of_an_epoch_when_more_are_asked_for(
    data_bin: Path, tmp_path: Path
) -> None:
    train(data_bin, tmp_path / "whole", 1000, "--max-epoch", "4")
    for epochs in ("1", "3", "4"):
        train(data_bin, tmp_path / "parts", 1000, "--max-epoch", epochs)
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def with_test_pairs(data_bin: Path, folder: Path, subset: str) -> Path:
    """A copy of the data folder with its test pairs as the training set `subset`."""
    data = shutil.copytree(data_bin, folder)
    for lang in ("de", "en"):
        for kind in ("bin", "idx"):
            name = f"de-en.{lang}.{kind}"
            shutil.copy(data_bin / f"test.{name}", data / f"{subset}.{name}")
    return data


def test_resumed_with_several_training_shards(data_bin: Path, tmp_path: Path) -> None:
    data = f"{data_bin}:{with_test_pairs(data_bin, tmp_path / 'second', 'train')}"
    train(data, tmp_path / "whole", 24)
    for stop in (5, 13, 24):
        train(data, tmp_path / "parts", stop)
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_resumed_with_two_training_sets_one_of_them_upsampled(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = with_test_pairs(data_bin, tmp_path / "data", "train1")
    options = ("--upsample-primary", "3")
    with caplog.at_level(logging.INFO):
        train(data, tmp_path / "whole", 30, *options)
    read = {text.split()[-2] for text in caplog.messages if text.endswith(" examples")}
    assert read == {"200", "20"}
    for stop in (7, 26, 30):
        train(data, tmp_path / "parts", stop, *options)
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    train(data, tmp_path / "other", 30, "--upsample-primary", "1")
    state = [
        load_checkpoint_file(tmp_path / name / "checkpoint_last.pt")["extra_state"][
            "train_iterator"
        ]
        for name in ("parts", "other")
    ]
    assert state[0]["epoch"] < state[1]["epoch"]


def test_a_finished_run_stays_as_it_is(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(data_bin, tmp_path, 10)
    last = tmp_path / "checkpoint_last.pt"
    before = last.read_bytes()
    with caplog.at_level(logging.INFO):
        run_fairseq("fairseq-train", data_bin, *COMMON, "--save-dir", tmp_path, "--max-update", 10)
    assert "nothing left to train: 10 updates have been made (--max-update 10)" in caplog.text
    assert last.read_bytes() == before
    train(data_bin, tmp_path, 11)
    assert load_checkpoint_file(last)["optimizer_history"][-1]["num_updates"] == 11


def test_update_checkpoints_at_the_end_of_an_epoch_are_written(
    data_bin: Path, tmp_path: Path
) -> None:
    train(
        data_bin, tmp_path, 1000, "--max-epoch", "2", "--save-interval-updates", "1",
        "--keep-interval-updates", "3",
    )  # fmt: skip
    last = load_checkpoint_file(tmp_path / "checkpoint_last.pt")["optimizer_history"][-1][
        "num_updates"
    ]
    found = sorted(int(p.stem.split("_")[2]) for p in tmp_path.glob("checkpoint_*_*.pt"))
    assert found == [last - 2, last - 1, last]
    newest = load_checkpoint_file(next(tmp_path.glob(f"checkpoint_2_{last}.pt")))
    require_equal(newest["model"], weights(tmp_path))


@given(st.integers(0, 1000), st.integers(1, 16), st.integers(1, 16), st.integers(1, 1000))
def test_position_on_another_number_of_ranks(
    position: int, before: int, ranks: int, length: int
) -> None:
    found = position_on(position, before, ranks, length)
    assert 0 <= found <= max(length - 1, 0)
    assert found * ranks <= position * before  # no batch is left out
    exact = position * before / ranks
    assert found == min(math.floor(exact), length - 1)
    assert position_on(position, before, before, 10**9) == position


def test_a_run_whose_time_is_over_stays_as_it_is(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = tmp_path / "checkpoint_last.pt"
    train(data_bin, tmp_path, 10, "--stop-time-hours", "1e-6")
    assert load_checkpoint_file(last)["optimizer_history"][-1]["num_updates"] == 1
    before = last.read_bytes()
    with caplog.at_level(logging.INFO):
        train(data_bin, tmp_path, 10, "--stop-time-hours", "1e-6")
    assert "(--stop-time-hours 1e-06)" in caplog.text
    assert last.read_bytes() == before
    train(data_bin, tmp_path, 10)
    assert load_checkpoint_file(last)["optimizer_history"][-1]["num_updates"] == 10


def test_all_training_shards_are_looked_for_before_the_first_epoch(
    data_bin: Path, tmp_path: Path
) -> None:
    none, empty = tmp_path / "none", tmp_path / "empty"
    with pytest.raises(DataError, match=f"data folder {none} does not exist"):
        train(f"{data_bin}:{none}", tmp_path / "run", 20)
    assert not (tmp_path / "run" / "checkpoint_last.pt").exists()
    empty.mkdir()
    with pytest.raises(DataError, match=f"split 'train' of de-en is not in {empty}$"):
        train(f"{data_bin}:{empty}", tmp_path / "run", 20)


def test_a_checkpoint_without_the_optimizer_is_named(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings(*options: str) -> list[str]:
        caplog.clear()
        train(data_bin, tmp_path / "run", 3, "--no-save-optimizer-state", *options)
        return [text for text in caplog.messages if "no state of the optimizer" in text]

    assert not warnings()
    last = tmp_path / "run" / "checkpoint_last.pt"
    (line,) = warnings()
    assert line.startswith(f"{last} holds no state") and "after 3 updates" in line
    assert not warnings("--reset-optimizer")
    last.rename(tmp_path / "other.pt")
    assert not warnings("--restore-file", str(tmp_path / "other.pt"))
