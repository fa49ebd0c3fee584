"""`--keep-best-checkpoints N` keeps the N best checkpoints.

fairseq writes one only if it is not worse than the worst file that it finds, even where there are fewer
than N of them. Equal values get a random digit at their end, which decides whether the next counts as
better, and two of them can share a name.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from admin_nmt.errors import UsageError
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope
from admin_nmt.host.saving import changed, save_as, save_more, saves

#: Values of `--best-checkpoint-metric` that a better model has higher, with the option that computes
#: them in a validation; and lower.
_MORE_IS_BETTER = {"bleu": "--eval-bleu", "accuracy": "--report-accuracy"}
_LESS_IS_BETTER = ("loss", "nll_loss", "ppl")


def name_of(metric: str, value: float, updates: int, suffix: str = "") -> str:
    """The file of a checkpoint: fairseq's name, with the update where that has a random digit.

    >>> name_of("bleu", 30.5, 1200)
    'checkpoint.best_bleu_30.5001200.pt'
    """
    return f"checkpoint.best_{metric}_{value:.3f}{updates}{suffix}.pt"


def worst_first(names: Iterable[str], metric: str, maximize: bool, suffix: str = "") -> list[str]:
    """Names as of `name_of`, in order; among equal values the later update is the better one, as for
    `checkpoint_best.pt`. Other names are left out.

    >>> worst_first(["checkpoint.best_bleu_7.00010.pt", "checkpoint.best_bleu_30.5009.pt"], "bleu", True)
    ['checkpoint.best_bleu_7.00010.pt', 'checkpoint.best_bleu_30.5009.pt']
    """
    pattern = re.compile(
        rf"checkpoint\.best_{re.escape(metric)}_(-?\d+\.\d{{3}})(\d*){re.escape(suffix)}\.pt"
    )
    matches = filter(None, map(pattern.fullmatch, names))
    sign = 1 if maximize else -1
    return [m[0] for m in sorted(matches, key=lambda m: (sign * float(m[1]), int(m[2] or 0)))]


def _the_best(save_checkpoint: Callable) -> Callable:
    """`--keep-best-checkpoints N` keeps the N best, the later one of equals, also after a resume;
    fairseq may keep fewer, and chooses at random among equals."""

    @wraps(save_checkpoint)
    def wrapped(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: float | None) -> Any:
        if (
            cfg.keep_best_checkpoints <= 0
            or not is_ours(trainer)
            or cfg.write_checkpoints_asynchronously
        ):
            return save_checkpoint(cfg, trainer, epoch_itr, val_loss)
        if val_loss is None or not saves(cfg, trainer):
            without_best = changed(cfg, keep_best_checkpoints=0)
            return save_checkpoint(without_best, trainer, epoch_itr, val_loss)
        return save_more(
            save_checkpoint, cfg, trainer, epoch_itr, val_loss,
            lambda saved: _keep(cfg, trainer, epoch_itr, val_loss, saved), keep_best_checkpoints=0,
        )  # fmt: skip

    return wrapped


def _keep(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: float, saved: str | None) -> str | None:
    """Write the checkpoint of `val_loss` if it is among the best, and remove those that no longer are;
    what `save_checkpoint` returns."""
    from fairseq.file_io import PathManager

    metric, suffix = cfg.best_checkpoint_metric, trainer.checkpoint_suffix
    new = name_of(metric, val_loss, trainer.get_num_updates(), suffix)
    there = {*PathManager.ls(cfg.save_dir), new}
    kept = worst_first(there, metric, cfg.maximize_best_checkpoint_metric, suffix)
    removed, kept = kept[: -cfg.keep_best_checkpoints], kept[-cfg.keep_best_checkpoints :]
    if new in kept:
        saved = save_as(new, saved, cfg, trainer, epoch_itr, val_loss)
    for old in removed:
        (Path(cfg.save_dir) / old).unlink(missing_ok=True)
    return saved


def _sensible(init: Callable) -> Callable:
    """A training of our models does not start where `--best-checkpoint-metric` cannot work. A metric that
    is never computed ends fairseq in a KeyError after the first epoch. Where
    `--maximize-best-checkpoint-metric` is missing for BLEU, or given for a loss, the worst checkpoint is
    kept, and `--patience` ends a training that improves."""

    @wraps(init)
    def wrapped(self: Any, cfg: Any, task: Any, model: Any, *args: Any, **kwargs: Any) -> None:
        from admin_nmt.models.admin_transformer import AdminTransformerModel

        if isinstance(model, AdminTransformerModel):
            check(
                cfg.checkpoint,
                {
                    "bleu": getattr(cfg.task, "eval_bleu", True),
                    "accuracy": getattr(cfg.criterion, "report_accuracy", True),
                },
            )
        init(self, cfg, task, model, *args, **kwargs)

    return wrapped


def check(saving: Any, computed: Mapping[str, bool]) -> None:
    """Refuse a `--best-checkpoint-metric` that cannot work.

    Args:
        saving: fairseq's options of checkpoints.
        computed: metrics that only an option computes, and whether it is given.

    Raises:
        UsageError: naming the option that is wrong or missing.
    """
    metric, maximize = saving.best_checkpoint_metric, saving.maximize_best_checkpoint_metric
    known = metric.lower()
    if metric != known and known in (*_MORE_IS_BETTER, *_LESS_IS_BETTER):
        raise UsageError(f"--best-checkpoint-metric {metric}: it is written {known}")
    if not computed.get(metric, True):
        raise UsageError(
            f"--best-checkpoint-metric {metric} needs {_MORE_IS_BETTER[metric]}: without it no "
            "validation computes it"
        )
    if metric in _MORE_IS_BETTER and not maximize:
        raise UsageError(
            f"--best-checkpoint-metric {metric} needs --maximize-best-checkpoint-metric: without "
            "it the checkpoint with the lowest value counts as the best"
        )
    if metric in _LESS_IS_BETTER and maximize:
        raise UsageError(
            f"--maximize-best-checkpoint-metric with --best-checkpoint-metric {metric} (fairseq's "
            "default is loss): the checkpoint with the highest value would count as the best; leave it "
            "out, or choose the metric by its name"
        )


PATCHES = (
    Patch("fairseq.checkpoint_utils", "save_checkpoint", _the_best, Scope.OURS),
    Patch("fairseq.trainer:Trainer", "__init__", _sensible, Scope.OURS),
)
