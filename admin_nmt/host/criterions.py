"""What fairseq's trainer tells a criterion: the model before training, the number of updates in it."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

logger = logging.getLogger(__name__)


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


def _name_like_ours(init: Callable) -> Callable:
    """A training of our models with fairseq's `label_smoothed_cross_entropy_with_rdrop`, whose name is
    close to that of our R-Drop, logs what that criterion reports wrongly and names ours."""

    @wraps(init)
    def wrapped(self: Any, cfg: Any, *args: Any, **kwargs: Any) -> None:
        init(self, cfg, *args, **kwargs)
        name = getattr(cfg.criterion, "_name", None)
        if name == _STOCK_RDROP and is_ours(self) and self.is_data_parallel_master:
            logger.warning(
                "--criterion %s is fairseq's: its losses count both passes, also in validation, where "
                "--eval-bleu fails; --criterion label_smoothed_cross_entropy_rdrop is this package's",
                name,
            )

    return wrapped


def _told_to_criterion(set_num_updates: Callable) -> Callable:
    """A criterion is told the number of updates (`set_num_updates`), for `--rdrop-interval`."""

    @wraps(set_num_updates)
    def wrapped(self: Any, num_updates: int) -> None:
        set_num_updates(self, num_updates)
        criterion = self.get_criterion()
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(num_updates)

    return wrapped


#: https://github.com/facebookresearch/fairseq/issues/5410
_STOCK_RDROP = "label_smoothed_cross_entropy_with_rdrop"
_TRAINER = "fairseq.trainer:Trainer"
PATCHES = (
    Patch(_TRAINER, "__init__", _checked_first, Scope.OURS),
    Patch(_TRAINER, "__init__", _name_like_ours, Scope.OURS),
    Patch(_TRAINER, "set_num_updates", _told_to_criterion, Scope.OURS),
)
