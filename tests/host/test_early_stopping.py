"""`--patience` over a resume: the same end as without, and a run that has stopped early stays so."""

import logging
from pathlib import Path

import pytest

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.modules.head_names import Head
from admin_nmt.pruning.removal import prune
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


def test_a_pruned_model_trains_from_the_beginning(data_bin: Path, tmp_path: Path) -> None:
    """Neither `--patience` nor `--max-epoch` is used up, and the best value of the whole model is not
    the pruned one's."""
    per_epoch = run(data_bin, tmp_path / "whole", 100) // 4
    pruned = tmp_path / "pruned.pt"
    prune(
        Checkpoint.open(tmp_path / "whole" / "checkpoint_last.pt"),
        {Head("E", 1, 1), Head("A", 1, 2)},
    ).save(pruned)
    forget_best()
    train(
        data_bin, tmp_path / "run", 1000, "--max-epoch", "1", "--restore-file", str(pruned),
        *OPTIONS, validate=True,
    )  # fmt: skip
    best = load_checkpoint_file(tmp_path / "run" / "checkpoint_best.pt")
    assert best["optimizer_history"][-1]["num_updates"] == per_epoch


def test_validations_before_the_first_at_a_checkpoint_count_over_a_resume(
    data_bin: Path, tmp_path: Path
) -> None:
    """Of epochs of six updates, validated every five; a checkpoint at the end of each."""
    options = (*OPTIONS, "--validate-interval", "100", "--validate-interval-updates", "5")

    def updates(most: int, *more: str) -> int:
        forget_best()
        train(data_bin, tmp_path, most, *options, *more, validate=True)
        forget_best()
        last = load_checkpoint_file(tmp_path / "checkpoint_last.pt")
        return last["optimizer_history"][-1]["num_updates"]

    assert updates(1000, "--max-epoch", "2") == 12
    state = load_checkpoint_file(tmp_path / "checkpoint_last.pt")["extra_state"]
    assert state.get("best") is None and state["early_stopping"]["num_runs"] == 1
    assert updates(1000) == 20  # the first is the best, and three tie
    assert updates(21, "--reset-meters") == 21


def test_another_metric_has_another_best_value(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A perplexity of 100 is not worse than a loss of 7."""
    caplog.set_level(logging.INFO)
    forget_best()
    train(data_bin, tmp_path, 1000, "--max-epoch", "1", validate=True)
    options = ("--best-checkpoint-metric", "ppl", "--patience", "2")
    for epochs in ("2", "3"):
        forget_best()
        train(data_bin, tmp_path, 1000, "--max-epoch", epochs, *options, validate=True)
    forget_best()
    said = [text for text in caplog.messages if "begin anew" in text]
    assert len(said) == 1  # not of the second start with the new one
    assert "chosen by loss (lower is better): by ppl (lower is better)" in said[0]
    best, last = (
        load_checkpoint_file(tmp_path / f"checkpoint_{name}.pt") for name in ("best", "last")
    )
    assert best["extra_state"] == last["extra_state"]
    count = last["extra_state"]["early_stopping"]
    assert count["best"] == last["extra_state"]["best"] > 20 and count["num_runs"] == 0
