"""fairseq on today's PyTorch: checkpoints, bf16, batches."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_nmt.compat import load_checkpoint_file
from admin_nmt.errors import UserError


class Hostile:
    """Makes a folder when unpickled without care."""

    def __init__(self, marker: Path, function: Callable = os.mkdir) -> None:
        self.call = (function, (str(marker),))

    def __reduce__(self) -> tuple:
        return self.call


def test_checkpoint_with_a_namespace_loads(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"args": argparse.Namespace(arch="x"), "model": {"w": torch.ones(2)}}, path)
    for mmap in (False, True):
        state = load_checkpoint_file(path, mmap=mmap)
        assert state["args"].arch == "x" and state["model"]["w"].sum() == 2


@pytest.mark.parametrize("core", ["_core", "core"])
def test_checkpoint_with_bleu_counts_loads(tmp_path: Path, core: str) -> None:
    """`--eval-bleu` leaves numpy arrays and scalars among the saved metrics."""
    path = tmp_path / "checkpoint.pt"
    counts = {"counts": np.array([4, 3, 2, 1]), "bleu": np.float64(31.5), "loss": np.float32(2)}
    state = {"args": None, "cfg": None, "model": {"w": torch.ones(2)}, "metrics": counts}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    # numpy 1 and 2 put the same functions into modules of different names.
    data = path.read_bytes()
    assert data.count(b"numpy._core.multiarray") > 1
    path.write_bytes(data.replace(b"numpy._core.multiarray", f"numpy.{core}.multiarray".encode()))
    found = load_checkpoint_file(path)["metrics"]
    assert found["counts"].tolist() == [4, 3, 2, 1] and found["bleu"] == 31.5
    assert found["loss"] == 2


@pytest.mark.parametrize("function", [os.mkdir, eval, print])
def test_foreign_objects_are_refused_and_do_not_run(tmp_path: Path, function: Callable) -> None:
    from fairseq import checkpoint_utils

    import admin_nmt  # noqa: F401

    path, marker = tmp_path / "hostile.pt", tmp_path / "ran"
    torch.save({"model": {}, "x": Hostile(marker, function)}, path)
    for load in (load_checkpoint_file, checkpoint_utils.load_checkpoint_to_cpu):
        with pytest.raises(UserError, match=f"refusing checkpoint.*{function.__name__}"):
            load(str(path))
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "directory", "truncated", "no model"])
def test_what_is_no_checkpoint_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    from fairseq import checkpoint_utils

    import admin_nmt  # noqa: F401

    path = tmp_path / "checkpoint.pt"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is no checkpoint\n" * 100)
    elif kind == "directory":
        path.mkdir()
    elif kind in ("truncated", "no model"):
        torch.save({"weights": torch.zeros(1000)}, path)
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:2000])
    loaders: list[Callable] = [load_checkpoint_file]
    if kind != "no model":
        loaders.append(checkpoint_utils.load_checkpoint_to_cpu)
    for load in loaders:
        with pytest.raises(UserError) as caught:
            load(str(path))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_weights_only_is_never_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairseq import checkpoint_utils

    import admin_nmt  # noqa: F401

    path = tmp_path / "checkpoint.pt"
    torch.save({"model": {"x": torch.ones(1)}, "args": argparse.Namespace()}, path)
    seen = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (seen.append(k), load(*a, **k))[1])
    load_checkpoint_file(path)
    with pytest.raises(Exception):  # noqa: B017  (fairseq wants more keys; it has read the file)
        checkpoint_utils.load_checkpoint_to_cpu(str(path))
    assert len(seen) == 2
    assert all(kwargs.get("weights_only", True) for kwargs in seen)


def test_bf16_does_not_ask_for_a_tpu(parse: Callable[..., Any]) -> None:
    assert parse("--bf16").common.tpu is False
    assert parse("--bf16", "--tpu").common.tpu is True
    assert parse().common.bf16 is False


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), max_size=60),
    multiple=st.sampled_from([1, 2, 8]),
    max_tokens=st.integers(20, 100),
)
def test_batches_hold_every_sentence_once(sizes: list[int], multiple: int, max_tokens: int) -> None:
    from fairseq.data import data_utils

    import admin_nmt  # noqa: F401

    vector = np.array(sizes, dtype=np.int64)
    order = np.argsort(vector, kind="stable")
    batches = data_utils.batch_by_size(
        order, lambda i: sizes[i], num_tokens_vec=vector[order], max_tokens=max_tokens,
        required_batch_size_multiple=multiple,
    )  # fmt: skip
    assert [i for batch in batches for i in batch] == order.tolist()
    for batch in batches:
        assert len(batch) * max(sizes[i] for i in batch) <= max_tokens


def test_copied_checkpoint_is_whole_or_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fairseq copies `checkpoint_last.pt` from the file of the epoch; it may be killed in between."""
    from fairseq.file_io import PathManager

    import admin_nmt  # noqa: F401

    source, last = tmp_path / "checkpoint2.pt", tmp_path / "checkpoint_last.pt"
    source.write_bytes(b"second")
    last.write_bytes(b"first")

    class Killed(BaseException):
        pass

    def copy_half(src: str, dst: str) -> None:
        Path(dst).write_bytes(Path(src).read_bytes()[:3])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", copy_half)
        with pytest.raises(Killed):
            PathManager.copy(str(source), str(last), overwrite=True)
    assert last.read_bytes() == b"first"
    assert PathManager.copy(str(source), str(last), overwrite=True)
    assert last.read_bytes() == b"second"
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, last.name]


def test_patches_are_applied_once() -> None:
    from fairseq import checkpoint_utils
    from fairseq.trainer import Trainer

    from admin_nmt import compat
    from admin_nmt.initialization import training_start

    before = checkpoint_utils.load_checkpoint_to_cpu, Trainer.get_train_iterator
    compat.apply()
    training_start.install()
    assert before == (checkpoint_utils.load_checkpoint_to_cpu, Trainer.get_train_iterator)
