"""`--patience` over a resume: the same end as without, and a run that has stopped early stays so."""

import logging
from pathlib import Path

import pytest

from admin_nmt.checkpoints.reading import load_checkpoint_file
from tests.support.training import forget_best, train

#: A learning rate of 0 ties all validations; the first is the best.
OPTIONS = ("--lr", "0", "--patience", "3")


def run(data: Path, folder: Path, epochs: int) -> int:
    """Train in a process that knows nothing; updates made altogether."""
    forget_best()
    train(data, folder, 1000, "--max-epoch", str(epochs), *OPTIONS, validate=True)
    last = load_checkpoint_file(folder / "checkpoint_last.pt")
    return last["optimizer_history"][-1]["num_updates"]


def test_patience_counts_over_a_resume(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(data_bin, tmp_path / "whole", 100)
    first = run(data_bin, tmp_path / "parts", 1)
    assert whole == 4 * first  # the best, and three that tie
    assert run(data_bin, tmp_path / "parts", 3) == 3 * first
    assert run(data_bin, tmp_path / "parts", 100) == whole
    caplog.set_level(logging.INFO)
    assert run(data_bin, tmp_path / "parts", 100) == whole
    assert "nothing left to train: 3 validations in a row were not better than" in caplog.text
