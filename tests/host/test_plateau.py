"""`--lr-scheduler reduce_lr_on_plateau` goes on after a resume as without one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule

from tests.support.training import (
    COMMON,
    forget_best,
    logged,
    require_equal,
    train_here,
    weights,
)


class Optimizer(FairseqOptimizer):
    """As much of one as a scheduler needs."""

    def __init__(self) -> None:
        self._optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))], lr=1.0)


def build() -> tuple[Any, Any]:
    optimizer = Optimizer()
    cfg: Any = SimpleNamespace(
        lr=[1.0], lr_patience=1, lr_shrink=0.5, lr_threshold=1e-4, warmup_init_lr=-1, warmup_updates=0,
        maximize_best_checkpoint_metric=False,
    )  # fmt: skip
    return optimizer, ReduceLROnPlateauLRSchedule(cfg, optimizer)


def test_bad_epochs_are_counted_over_a_resume() -> None:
    optimizer, scheduler = build()
    for epoch, value in enumerate((3.0, 3.1), start=1):
        scheduler.step(epoch, value)
    state = scheduler.state_dict()
    assert optimizer.get_lr() == 1.0
    resumed_optimizer, resumed = build()
    resumed.load_state_dict(state)
    for one in (scheduler, resumed):
        one.step(3, 3.2)
    assert optimizer.get_lr() == resumed_optimizer.get_lr() == 0.5


def test_a_checkpoint_of_fairseq_alone_is_read() -> None:
    optimizer, scheduler = build()
    scheduler.load_state_dict({"best": 3.0, "last_epoch": 2})
    scheduler.step(3, 3.2)
    assert optimizer.get_lr() == 1.0


def test_the_validation_of_the_last_epoch_counts_after_a_resume(
    data_bin: Path, tmp_path: Path
) -> None:
    """No value is half of the best: every epoch but the first halves the learning rate."""
    options = ("--lr-scheduler", "reduce_lr_on_plateau", "--warmup-updates", "0", "--lr-patience", "0",
               "--lr-threshold", "0.5", "--lr-shrink", "0.5")  # fmt: skip

    def rates(folder: str, epochs: int, *more: str) -> list[float]:
        """Learning rates of the epochs that this start trains."""
        given = ["--max-update", "1000", "--max-epoch", epochs, "--save-dir", tmp_path / folder]
        words = [word for word in COMMON if word != "--disable-validation"]
        log = train_here(data_bin, *words, *given, *options, *more)
        return [float(epoch["train_lr"]) for epoch in logged(log, "train")]

    expected = [1e-3, 1e-3, 5e-4, 2.5e-4]
    assert rates("whole", 4) == expected
    assert [rate for epochs in (1, 2, 3, 4) for rate in rates("parts", epochs)] == expected
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert rates("parts", 5, "--reset-lr-scheduler") == [2.5e-4]
    forget_best()
