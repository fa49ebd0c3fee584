"""float32 master weights in checkpoints of `--fp16` and `--bf16` runs of our models.

fairseq trains a float32 copy of the parameters and keeps only its rounding, so that a resumed run
starts from rounded weights. Here the copy lies beside the optimizer's moments, as `fp32_params`
(4 bytes more a parameter); fairseq without this package passes over it.

A checkpoint whose weights were changed afterwards, such as an average, still has the copy of the old
ones: it counts only where its rounding is the weights.
"""

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from admin_nmt.checkpoints.checkpoint import FLOAT32_COPIES
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

logger = logging.getLogger(__name__)


def masters(optimizer: Any) -> list[Tensor]:
    """The float32 parameters of an optimizer, one flat tensor per device or one per parameter;
    none where it keeps no copy."""
    held = getattr(optimizer, "fp32_params", None)
    if held is None:
        return []
    if torch.is_tensor(held):
        return [held]
    return list(held.values() if isinstance(held, dict) else held)


def _with_masters(state_dict: Callable) -> Callable:
    """Checkpoints of 16-bit trainings keep the float32 parameters, not only the rounded ones."""

    @wraps(state_dict)
    def wrapped(self: Any) -> dict[str, Any]:
        state = state_dict(self)
        optimizer_state = state.get("last_optimizer_state")
        found = masters(self.optimizer)
        if found and isinstance(optimizer_state, dict) and is_ours(self):
            copies = [tensor.detach().clone() for tensor in found]
            state["last_optimizer_state"] = optimizer_state | {FLOAT32_COPIES: copies}
        return state

    return wrapped


def _of_each(tensors: Sequence[Tensor], sizes: list[int]) -> list[Tensor] | None:
    """The values of one flat tensor, or of one tensor per parameter, as a flat view per parameter; None
    where they are of parameters of other sizes."""
    flat = [tensor.reshape(-1) for tensor in tensors]
    if len(flat) == 1 and flat[0].numel() == sum(sizes):
        return list(flat[0].split(sizes))
    return flat if [part.numel() for part in flat] == sizes else None


def _rounds_to(copy: Tensor, weight: Tensor) -> bool:
    """Whether a 16-bit weight is the rounding of a float32 copy: to its own type, or first to the other
    one, as where a training goes on with `--bf16` from `--fp16`."""
    here = copy.to(weight.device)
    types = dict.fromkeys((weight.dtype, torch.float16, torch.bfloat16))
    return any(torch.equal(here.to(first).to(weight.dtype), weight) for first in types)


def _restoring(load_state_dict: Callable) -> Callable:
    """16-bit trainings go on from the float32 parameters where a checkpoint has them, and they are those
    of its weights: an average and other changed weights are trained on as they are."""

    @wraps(load_state_dict)
    def wrapped(self: Any, state_dict: dict[str, Any], optimizer_overrides: Any = None) -> None:
        stored = state_dict.get(FLOAT32_COPIES)
        rest = {key: value for key, value in state_dict.items() if key != FLOAT32_COPIES}
        load_state_dict(self, rest, optimizer_overrides)
        if stored is None:
            return
        # Flat here and one by one there (`--fp16-no-flatten-grads`): the same numbers in a row.
        weights = [weight.detach().reshape(-1) for weight in self.fp16_params]
        sizes = [weight.numel() for weight in weights]
        held, copies = _of_each(masters(self), sizes), _of_each(stored, sizes)
        if held is None or copies is None:
            return  # other parameters are trained now than in the checkpoint
        others = 0
        with torch.no_grad():
            for target, copy, weight in zip(held, copies, weights, strict=True):
                if _rounds_to(copy, weight):
                    target.copy_(copy)
                else:  # fairseq has filled it from the weight
                    others += 1
        if others:
            logger.info(
                f"{others} of {len(weights)} parameters go on from the checkpoint's weights, which are not "
                "its float32 copies rounded (an average, or weights that were changed)"
            )

    return wrapped


PATCHES = (
    Patch("fairseq.trainer:Trainer", "state_dict", _with_masters, Scope.OURS),
    Patch("fairseq.optim.fp16_optimizer:FP16Optimizer", "load_state_dict", _restoring, Scope.OURS),
)
