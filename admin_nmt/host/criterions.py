"""What fairseq's trainer tells a criterion: the model before training, the number of updates in it."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.host.patch import Patch, Scope


def _checked_first(init: Callable) -> Callable:
    """A criterion can refuse a model (`check_model`) before anything is built; an exception inside a
    training step leaves a `crash.pt` in `--save-dir`, whatever `--no-save` says."""

    @wraps(init)
    def wrapped(
        self: Any, cfg: Any, task: Any, model: Any, criterion: Any, *rest: Any, **kwargs: Any
    ) -> None:
        if hasattr(criterion, "check_model"):
            criterion.check_model(model)
        init(self, cfg, task, model, criterion, *rest, **kwargs)

    return wrapped


def _told_to_criterion(set_num_updates: Callable) -> Callable:
    """A criterion learns the number of updates (`set_num_updates`), for `--rdrop-interval`."""

    @wraps(set_num_updates)
    def wrapped(self: Any, num_updates: int) -> None:
        set_num_updates(self, num_updates)
        criterion = self.get_criterion()
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(num_updates)

    return wrapped


_TRAINER = "fairseq.trainer:Trainer"
PATCHES = (
    Patch(_TRAINER, "__init__", _checked_first, Scope.OURS),
    Patch(_TRAINER, "set_num_updates", _told_to_criterion, Scope.OURS),
)
