"""More names for the checkpoint that fairseq's `save_checkpoint` writes, all of them before
`checkpoint_last.pt`."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any


def saves(cfg: Any, trainer: Any) -> bool:
    """Whether this rank writes checkpoints, and not asynchronously: then they can be copied at once."""
    return bool(
        not cfg.no_save
        and not cfg.write_checkpoints_asynchronously
        and trainer.should_save_checkpoint_on_current_rank
    )


def changed(cfg: Any, **changes: Any) -> Any:
    """A copy of the options with other values, for fairseq; what checkpoints say of the options stays."""
    copied = copy.copy(cfg)
    for name, value in changes.items():
        setattr(copied, name, value)
    return copied


def save_as(
    name: str, saved: str | None, cfg: Any, trainer: Any, epoch_itr: Any, val_loss: float | None
) -> str:
    """Give the checkpoint of this call another name.

    Args:
        name: of the file in `--save-dir`.
        saved: the checkpoint, None where nothing else was due; then it is written. So it is where `saved` is
            gone: counting updates anew (`--reset-optimizer`), fairseq takes the file that it has just written
            for the oldest of `--keep-interval-updates`, and removes it.

    Returns:
        `saved`, or the path of the new file.
    """
    from fairseq.checkpoint_utils import save_checkpoint
    from fairseq.file_io import PathManager

    path = str(Path(cfg.save_dir) / name)
    if saved is not None and PathManager.exists(saved):
        PathManager.copy(saved, path, overwrite=True)
        return saved
    state = {"train_iterator": epoch_itr.state_dict(), "val_loss": val_loss}
    if hasattr(trainer.task, "get_checkpoint_dict"):
        state |= trainer.task.get_checkpoint_dict()
    if hasattr(save_checkpoint, "best"):
        state["best"] = save_checkpoint.best
    return str(trainer.save_checkpoint(path, state))


def save_more(
    save_checkpoint: Callable, cfg: Any, trainer: Any, epoch_itr: Any, val_loss: float | None,
    more: Callable[[str | None], str | None], **changes: Any,
) -> str | None:  # fmt: skip
    """fairseq's `save_checkpoint`, then `more` files, and `checkpoint_last.pt` after all of them: a training
    that ends in between resumes from the one before, and writes the others again.

    Args:
        more: takes and returns the path of the checkpoint, None where nothing was due.
        changes: as those of `changed`.
    """
    without_last = changed(cfg, no_last_checkpoints=True, **changes)
    saved = more(save_checkpoint(without_last, trainer, epoch_itr, val_loss))
    if cfg.no_last_checkpoints:
        return saved
    name = f"checkpoint_last{trainer.checkpoint_suffix}.pt"
    return save_as(name, saved, cfg, trainer, epoch_itr, val_loss)
