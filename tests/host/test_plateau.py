"""`--lr-scheduler reduce_lr_on_plateau --lr-patience N` counts validations over a resume."""

from types import SimpleNamespace
from typing import Any

import torch
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule


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
