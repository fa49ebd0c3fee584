"""Figures of a model beside the loss: fairseq shows them wherever it shows its own.

That is its progress bar, its log, `--tensorboard-logdir` and `--wandb-project`. They are logged as derived
metrics, which fairseq computes only when it shows them: an update in between costs nothing and
never waits for a GPU.
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from fairseq.logging import metrics

from admin_nmt.models.heads import attentions
from admin_nmt.modules.residual import ScaledResidual

#: After fairseq's loss, speed and gradient norm, before its clocks.
PRIORITY = 700


def omega_range(model: Any, stack: str) -> tuple[float, float]:
    """The smallest and the largest component of all omegas of a stack, (nan, nan) if it has none."""
    omegas = [
        residual.omega.detach()
        for name, residual in model.residuals()
        if name.startswith(f"{stack}.") and isinstance(residual, ScaledResidual)
    ]
    if not omegas:
        return float("nan"), float("nan")
    smallest, largest = torch.cat(omegas).float().aminmax()
    return smallest.item(), largest.item()


def kept_heads(model: Any) -> int:
    """Attention heads that are neither removed nor masked."""
    total = 0
    for _, _, _, attention in attentions(model):
        gate = attention.head_gate
        total += attention.num_heads if gate is None else int(gate.count_nonzero())
    return total


def _end_of_range(model: Any, stack: str, which: int) -> float:
    return omega_range(model, stack)[which]


def log_progress(model: Any) -> None:
    """Have fairseq show `encoder_omega_min`, `_max`, the decoder's, and, where heads were removed or
    masked, `kept_heads`. Called in every update, inside fairseq's `metrics.aggregate`."""
    reference = weakref.ref(model)  # fairseq keeps the functions for as long as the process lives

    def log(name: str, value: Callable[[Any], float]) -> None:
        def derived(_: Any) -> float:
            found = reference()
            return float("nan") if found is None else value(found)

        metrics.log_derived(name, derived, PRIORITY)

    stacks = {
        name.partition(".")[0]
        for name, residual in model.residuals()
        if isinstance(residual, ScaledResidual)
    }
    for stack in sorted(stacks, reverse=True):
        for end, which in (("min", 0), ("max", 1)):
            log(f"{stack}_omega_{end}", partial(_end_of_range, stack=stack, which=which))
    if model.cfg.heads_per_layer or model.cfg.head_mask:
        log("kept_heads", kept_heads)
