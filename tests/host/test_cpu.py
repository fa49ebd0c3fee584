"""Options that fairseq takes a GPU for, on the CPU."""

import logging
from pathlib import Path

import pytest

from admin_nmt.checkpoints.reading import load_checkpoint_file
from tests.support.training import train


def test_fp16_leaves_out_updates_that_overflow(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train(data_bin, tmp_path, 3, "--fp16", "--fp16-init-scale", "2048")
    assert (
        "gradient overflow detected, ignoring gradient, setting loss scale to: 1024" in caplog.text
    )
    last = load_checkpoint_file(tmp_path / "checkpoint_last.pt")
    assert last["optimizer_history"][-1]["num_updates"] == 3
    assert last["optimizer_history"][-1]["optimizer_name"] == "FP16Optimizer"
