"""What training says of options that do nothing."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope
from admin_nmt.host.subword_sampling import CHANCES
from admin_nmt.option_names import plain_value

logger = logging.getLogger(__name__)


def of_criterion_and_task(criterion: Any, task: Any) -> list[str]:
    """One line for each option that differs from its default and changes nothing beside the others.

    Args:
        criterion: configuration of any criterion.
        task: configuration of any task.
    """
    # fairseq's own R-Drop has an alpha too, and none of the other options.
    off = hasattr(criterion, "rdrop_passes") and criterion.rdrop_alpha == 0
    chance = any(getattr(task, name, 0) for name in CHANCES)
    lines = {
        "--label-smoothing-over: give --label-smoothing": (
            plain_value(getattr(criterion, "label_smoothing_over", "others")) != "others"
            and not criterion.label_smoothing
        ),
        "--alignment-lambda: give --load-alignments": (
            getattr(criterion, "alignment_lambda", 0.05) != 0.05
            and not getattr(task, "load_alignments", False)
        ),
        "--rdrop-passes: --rdrop-alpha 0 turns R-Drop off": (off and criterion.rdrop_passes != 2),
        "--rdrop-interval: --rdrop-alpha 0 turns R-Drop off": (
            off and criterion.rdrop_interval != 1
        ),
        "--rdrop-loss-scale: --rdrop-alpha 0 turns R-Drop off": (
            off and plain_value(criterion.rdrop_loss_scale) != "sum"
        ),
        "--bpe-dropout-side: give --bpe-dropout or --subword-regularization": (
            plain_value(getattr(task, "bpe_dropout_side", "both")) != "both" and not chance
        ),
    }
    return [line for line, unused in lines.items() if unused]


def _told_at_the_start(init: Callable) -> Callable:
    """A training of our models logs a warning for each of our options that has no effect beside the
    others (`--residual-attention-reduce` without `--residual-attention`)."""

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        from admin_nmt.models.unused_options import unused_options

        init(self, *args, **kwargs)
        if is_ours(self) and self.is_data_parallel_master:
            told = of_criterion_and_task(self.cfg.criterion, self.cfg.task)
            for line in unused_options(self.get_model().cfg) + told:
                logger.warning("no effect of %s", line)

    return wrapped


PATCHES = (Patch("fairseq.trainer:Trainer", "__init__", _told_at_the_start, Scope.OURS),)
