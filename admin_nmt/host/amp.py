"""`--amp` divides the gradients by the loss scale once.

fairseq hands PyTorch's `GradScaler` two objects in an update: the optimizer for the norm, and its own
wrapper around it for the step. The scaler takes them for two optimizers and divides the gradients
twice. Adam hardly sees a factor on all gradients, but with a scale of some ten thousand gradients of
deep models come down to its epsilon, and updates shrink.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope


def step(optimizer: Any) -> None:
    """fairseq's `AMPOptimizer.step`, with the object that `clip_grad_norm` names."""
    optimizer.scaler.step(optimizer.optimizer)
    optimizer.scaler.update()


def _dividing_once(build: Callable) -> Callable:
    """Under `--amp` gradients are divided by the loss scale once; fairseq does it twice, for the norm and
    again for the step, so that Adam's updates shrink where gradients are small."""

    @wraps(build)
    def _build_optimizer(self: Any) -> None:
        from fairseq.optim import AMPOptimizer

        build(self)
        if is_ours(self) and isinstance(self._optimizer, AMPOptimizer):
            self._optimizer.step = partial(step, self._optimizer)

    return _build_optimizer


PATCHES = (Patch("fairseq.trainer:Trainer", "_build_optimizer", _dividing_once, Scope.OURS),)
