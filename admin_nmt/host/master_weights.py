"""float32 master weights in checkpoints of `--fp16` and `--bf16` runs of our models.

fairseq trains a float32 copy of the parameters and keeps only its rounding, so that a resumed run
starts from rounded weights. Here the copy lies beside the optimizer's moments, as `fp32_params`
(4 bytes more a parameter); fairseq without this package passes over it.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

KEY = "fp32_params"


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
            state["last_optimizer_state"] = optimizer_state | {KEY: copies}
        return state

    return wrapped


def _restoring(load_state_dict: Callable) -> Callable:
    """16-bit trainings go on from the float32 parameters where a checkpoint has them."""

    @wraps(load_state_dict)
    def wrapped(self: Any, state_dict: dict[str, Any], optimizer_overrides: Any = None) -> None:
        stored = state_dict.get(KEY)
        rest = {key: value for key, value in state_dict.items() if key != KEY}
        load_state_dict(self, rest, optimizer_overrides)
        if stored is None:
            return
        held = masters(self)
        # Flat here and one by one there (`--fp16-no-flatten-grads`): the same numbers in a row.
        flat = torch.cat([tensor.reshape(-1) for tensor in stored])
        if flat.numel() != sum(tensor.numel() for tensor in held):
            return  # other parameters are trained now than in the checkpoint
        with torch.no_grad():
            for target, part in zip(held, flat.split([t.numel() for t in held]), strict=True):
                target.copy_(part.view_as(target))

    return wrapped


PATCHES = (
    Patch("fairseq.trainer:Trainer", "state_dict", _with_masters, Scope.OURS),
    Patch("fairseq.optim.fp16_optimizer:FP16Optimizer", "load_state_dict", _restoring, Scope.OURS),
)
