"""What training says of options that do nothing."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

logger = logging.getLogger(__name__)


def _told_at_the_start(init: Callable) -> Callable:
    """A training of our models logs a warning for each of our options that has no effect beside the
    others (`--residual-attention-reduce` without `--residual-attention`)."""

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        from admin_nmt.models.unused_options import unused_options

        init(self, *args, **kwargs)
        if is_ours(self) and self.is_data_parallel_master:
            for line in unused_options(self.get_model().cfg):
                logger.warning("no effect of %s", line)

    return wrapped


PATCHES = (Patch("fairseq.trainer:Trainer", "__init__", _told_at_the_start, Scope.OURS),)
