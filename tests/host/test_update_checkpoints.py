"""`--save-interval-updates`: every update checkpoint is there, also those that end an epoch."""

from pathlib import Path
from typing import Any

import pytest

from admin_nmt.checkpoints.reading import load_checkpoint_file
from tests.support.saving import save
from tests.support.training import forget_best, train


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"no_epoch_checkpoints": True, "no_last_checkpoints": True},
            {"checkpoint_1_1.pt": 1, "checkpoint_2_2.pt": 2, "checkpoint_3_3.pt": 3},
        ),
        (
            {"no_epoch_checkpoints": True},
            {"checkpoint_1_1.pt": 1, "checkpoint_2_2.pt": 2, "checkpoint_3_3.pt": 3,
             "checkpoint_last.pt": 3},
        ),
        (
            {"save_interval": 2},
            {"checkpoint_1_1.pt": 1, "checkpoint2.pt": 2, "checkpoint_3_3.pt": 3,
             "checkpoint_last.pt": 3},
        ),
        (
            {"no_epoch_checkpoints": True, "keep_interval_updates": 1},
            {"checkpoint_3_3.pt": 3, "checkpoint_last.pt": 3},
        ),
        ({}, {"checkpoint1.pt": 1, "checkpoint2.pt": 2, "checkpoint3.pt": 3, "checkpoint_last.pt": 3}),
    ],
    ids=str,
)  # fmt: skip
def test_at_the_end_of_an_epoch(
    tmp_path: Path, options: dict[str, Any], expected: dict[str, int]
) -> None:
    forget_best()
    for update, value in ((1, 3.0), (2, 4.0), (3, 4.5)):  # the first is the best
        save(tmp_path, update, value, epoch=update, save_interval_updates=1, **options)
    forget_best()
    found = {path.name: int(path.read_text()) for path in tmp_path.iterdir()}
    assert found == {"checkpoint_best.pt": 1} | expected


def test_updates_counted_anew_in_the_same_folder(data_bin: Path, tmp_path: Path) -> None:
    """fairseq removes the update checkpoint that it has just written, as the oldest of all."""
    options = ("--save-interval-updates", "2", "--keep-interval-updates", "2",
               "--keep-best-checkpoints", "2")  # fmt: skip
    train(data_bin, tmp_path, 6, *options, validate=True)
    reset = (f"--reset-{what}" for what in ("optimizer", "lr-scheduler", "dataloader", "meters"))
    train(data_bin, tmp_path, 4, *options, *reset, validate=True)
    forget_best()
    last = load_checkpoint_file(tmp_path / "checkpoint_last.pt")
    assert last["optimizer_history"][-1]["num_updates"] == 4
    assert len(list(tmp_path.glob("checkpoint_1_*.pt"))) == 2
    assert len(list(tmp_path.glob("checkpoint.best_*.pt"))) == 2
