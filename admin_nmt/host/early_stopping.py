"""`--patience` counts validations over a resume.

fairseq keeps the best value and the number of validations without a better one in the process alone:
a resumed run counts from zero, takes the first value it sees for the best, and one that has stopped
early goes on for `--patience` validations each time it is started again.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.host.exact_resume import NothingLeft
from admin_nmt.host.fine_tuning import begins_to_finetune
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

logger = logging.getLogger(__name__)

KEY = "early_stopping"
#: The options that say which of two validations is the better one.
_METRIC = ("best_checkpoint_metric", "maximize_best_checkpoint_metric")


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


def _of_one_metric(load_checkpoint: Callable) -> Callable:
    """After a change of `--best-checkpoint-metric` or `--maximize-best-checkpoint-metric` the best value and
    the count of `--patience` begin anew; fairseq compares values of the new metric with the best of the old."""

    @wraps(load_checkpoint)
    def wrapped(self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        extra_state = load_checkpoint(self, filename, *args, **kwargs)
        if extra_state is None or not is_ours(self) or not Path(filename).is_file():
            return extra_state
        checkpoint, now = Checkpoint.open(filename), self.cfg.checkpoint
        before = {name: checkpoint.setting("checkpoint", name) for name in _METRIC}
        if any(value not in (None, getattr(now, name)) for name, value in before.items()):
            values = [extra_state.pop(name, None) for name in ("best", KEY)]
            if any(value is not None for value in values):
                logger.info(
                    f"{filename} was chosen by {_as_words(*before.values())}: by "
                    f"{_as_words(*(getattr(now, name) for name in _METRIC))} the best value and what "
                    "--patience counts begin anew"
                )
        return extra_state

    return wrapped


def _as_words(metric: str, maximize: bool | None) -> str:
    """What one validation is compared by with another: `ppl (lower is better)`."""
    return f"{metric} ({'higher' if maximize else 'lower'} is better)"


def _counting_on(load_checkpoint: Callable) -> Callable:
    """A resumed run goes on counting for `--patience`, and one that has stopped early stays so when it
    is started again."""

    @wraps(load_checkpoint)
    def wrapped(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
        counter = _counter()
        # Where these forget the best value, as fairseq does, the count begins anew too.
        reset = cfg.reset_optimizer or cfg.reset_meters or begins_to_finetune(cfg, trainer)
        extra_state, epoch_itr = load_checkpoint(cfg, trainer, **kwargs)
        count = _count_of(extra_state or {})
        if reset or count is None or not is_ours(trainer):
            return extra_state, epoch_itr
        counter.best, counter.num_runs = count["best"], count["num_runs"]
        if 0 < cfg.patience <= counter.num_runs:
            logger.info(
                f"nothing left to train: {counter.num_runs} validations in a row were not better "
                f"than {counter.best} (--patience {cfg.patience})"
            )
            return extra_state, NothingLeft()
        return extra_state, epoch_itr

    return wrapped


def _count_of(extra_state: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a checkpoint says of `--patience`; None where nothing has been validated. The best value alone
    is in those of fairseq, and missing where all validations were between checkpoints."""
    best = extra_state.get("best")
    return extra_state.get(KEY, None if best is None else {"best": best, "num_runs": 0})


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
    Patch("fairseq.trainer:Trainer", "load_checkpoint", _of_one_metric, Scope.OURS),
    Patch("fairseq.checkpoint_utils", "load_checkpoint", _counting_on, Scope.OURS),
)
