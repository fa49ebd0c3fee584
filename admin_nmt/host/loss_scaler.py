"""The counters of the loss scaler, and of batches tried again, in checkpoints of `--fp16` and `--amp`
runs of our models.

fairseq keeps the scale of `--fp16`, but not how many updates ago it last changed or overflowed, and
nothing under `--amp`. A resumed run would raise the scale at other updates, and one that is ended more
often than `--fp16-scale-window` would never raise it. Under `--amp` a batch whose gradients overflow is
tried again until there have been `--amp-batch-retries` such tries. fairseq without this package passes
over what is added here.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

#: In `last_optimizer_state`.
KEY = "loss_scaler"
#: In `extra_state`.
RETRIES = "amp_retries"
#: Of fairseq's `DynamicLossScaler`, and of PyTorch's `GradScaler`; settings stay those of the command.
_COUNTERS = ("_iter", "_last_overflow_iter", "_last_rescale_iter", "_overflows_since_rescale")
_AMP_FIELDS = ("scale", "_growth_tracker")


def numbers(scaler: Any) -> dict[str, Any]:
    """What a loss scaler knows of the updates so far; nothing of None and of one that is turned off."""
    from fairseq.optim.dynamic_loss_scaler import DynamicLossScaler

    if isinstance(scaler, DynamicLossScaler):
        return {name: getattr(scaler, name) for name in _COUNTERS}
    state = scaler.state_dict() if scaler is not None else {}
    return {name: state[name] for name in _AMP_FIELDS if name in state}


def restore(scaler: Any, stored: dict[str, Any]) -> None:
    """Set `numbers` of a scaler, those that it has."""
    from fairseq.optim.dynamic_loss_scaler import DynamicLossScaler

    known = {name: stored[name] for name in numbers(scaler) if name in stored}
    if isinstance(scaler, DynamicLossScaler):
        vars(scaler).update(known)
    elif known:
        scaler.load_state_dict(scaler.state_dict() | known)


def _with_scaler(state_dict: Callable) -> Callable:
    """Checkpoints of `--fp16` and `--amp` trainings keep when the loss scale was last changed, and under
    `--amp` the scale and how many batches were tried again."""

    @wraps(state_dict)
    def wrapped(self: Any) -> dict[str, Any]:
        state = state_dict(self)
        if not is_ours(self):
            return state
        optimizer_state = state.get("last_optimizer_state")
        found = numbers(getattr(self.optimizer, "scaler", None))
        if found and isinstance(optimizer_state, dict):
            state["last_optimizer_state"] = optimizer_state | {KEY: found}
        if self.cfg.common.amp:
            state["extra_state"][RETRIES] = self._amp_retries
        return state

    return wrapped


def _restoring(load_state_dict: Callable) -> Callable:
    """The loss scale of a resumed training changes at the updates at which it would without the resume."""

    @wraps(load_state_dict)
    def wrapped(self: Any, state_dict: dict[str, Any], optimizer_overrides: Any = None) -> None:
        load_state_dict(self, state_dict, optimizer_overrides)
        restore(self.scaler, state_dict.get(KEY, {}))

    return wrapped


def _with_retries(load_checkpoint: Callable) -> Callable:
    """A resumed `--amp` training leaves out the batches that it would leave out without the resume."""

    @wraps(load_checkpoint)
    def wrapped(
        self: Any, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        extra_state = load_checkpoint(self, filename, reset_optimizer, *args, **kwargs)
        if extra_state is not None and self.cfg.common.amp and not reset_optimizer:
            self._amp_retries = extra_state.get(RETRIES, 0)
        return extra_state

    return wrapped


PATCHES = (
    Patch("fairseq.trainer:Trainer", "state_dict", _with_scaler, Scope.OURS),
    Patch("fairseq.trainer:Trainer", "load_checkpoint", _with_retries, Scope.OURS),
    *(
        Patch(f"fairseq.optim.{place}", "load_state_dict", _restoring, Scope.OURS)
        for place in (
            "fp16_optimizer:FP16Optimizer",
            "fp16_optimizer:MemoryEfficientFP16Optimizer",
            "amp_optimizer:AMPOptimizer",
        )
    ),
)
