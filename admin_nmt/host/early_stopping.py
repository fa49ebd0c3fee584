"""`--patience` counts validations over a resume.

fairseq keeps the best value and the number of validations without a better one in the process alone:
a resumed run counts from zero, takes the first value it sees for the best, and one that has stopped
early goes on for `--patience` validations each time it is started again.
"""

import logging
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.host.exact_resume import NothingLeft
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

logger = logging.getLogger(__name__)

KEY = "early_stopping"


def _keeping_the_count(save_checkpoint: Callable) -> Callable:
    """Checkpoints keep what `--patience` counts: the best value and the validations since then."""

    @wraps(save_checkpoint)
    def wrapped(self: Any, filename: str, extra_state: dict[str, Any]) -> Any:
        counter = _counter()
        if is_ours(self) and hasattr(counter, "best"):
            count = {"best": counter.best, "num_runs": counter.num_runs}
            extra_state = extra_state | {KEY: count}
        return save_checkpoint(self, filename, extra_state)

    return wrapped


def _counting_on(load_checkpoint: Callable) -> Callable:
    """A resumed run goes on counting for `--patience`, and one that has stopped early stays so when it
    is started again."""

    @wraps(load_checkpoint)
    def wrapped(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
        from fairseq import checkpoint_utils

        counter = _counter()
        extra_state, epoch_itr = load_checkpoint(cfg, trainer, **kwargs)
        best = (extra_state or {}).get("best")
        # With options such as --reset-meters and --finetune-from-model fairseq forgets the best value.
        kept = best is not None and getattr(checkpoint_utils.save_checkpoint, "best", None) == best
        if not (kept and is_ours(trainer)):
            return extra_state, epoch_itr
        count = extra_state.get(KEY, {"best": best, "num_runs": 0})
        counter.best, counter.num_runs = count["best"], count["num_runs"]
        if 0 < cfg.patience <= counter.num_runs:
            logger.info(
                f"nothing left to train: {counter.num_runs} validations in a row were not better "
                f"than {counter.best} (--patience {cfg.patience})"
            )
            return extra_state, NothingLeft()
        return extra_state, epoch_itr

    return wrapped


def _counter() -> Any:
    """The function on which fairseq keeps its count, of the program that runs: under
    `python -m fairseq_cli.train` that is the main module, and importing it would make a second."""
    main = sys.modules["__main__"]
    if getattr(main.__spec__, "name", None) == "fairseq_cli.train":
        return main.should_stop_early
    from fairseq_cli.train import should_stop_early

    return should_stop_early


PATCHES = (
    Patch("fairseq.trainer:Trainer", "save_checkpoint", _keeping_the_count, Scope.OURS),
    Patch("fairseq.checkpoint_utils", "load_checkpoint", _counting_on, Scope.OURS),
)
