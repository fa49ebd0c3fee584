"""Checkpoint files are read without running code from them, and refused in one line."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file, open_checkpoint
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


def test_a_file_whose_name_is_no_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"r\xfcn.pt")
    with path.open("wb") as stream:
        torch.save({"args": None, "model": {"w": torch.ones(2)}}, stream)
    assert open_checkpoint(path)["model"]["w"].sum() == 2


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


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "directory", "below a file", "truncated", "no model"]
)
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
    elif kind == "below a file":
        path.touch()
        path = path / "checkpoint.pt"
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
