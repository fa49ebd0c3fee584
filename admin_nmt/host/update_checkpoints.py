"""An update checkpoint that falls on an epoch's last update is written too.

fairseq writes `checkpoint_E_U.pt` only inside epochs, because the end of one has `checkpointE.pt`.
Under `--no-epoch-checkpoints`, and in most epochs under `--save-interval`, it has none, and averaging the
last update checkpoints would miss one.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from admin_nmt.host.patch import Patch, Scope
from admin_nmt.host.saving import save_as, save_more, saves


def _complete(save_checkpoint: Callable) -> Callable:
    """`checkpoint_E_U.pt` is written also where update U ends an epoch E that has no `checkpointE.pt`
    (`--no-epoch-checkpoints`, `--save-interval`); averaging the last update checkpoints would miss it."""

    @wraps(save_checkpoint)
    def wrapped(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> Any:
        def more(saved: str | None) -> str:
            return _save_update_checkpoint(cfg, trainer, epoch_itr, val_loss, saved)

        due = cfg.save_interval_updates > 0 and (
            trainer.get_num_updates() % cfg.save_interval_updates == 0
        )
        without = cfg.no_epoch_checkpoints or epoch_itr.epoch % cfg.save_interval != 0
        if due and without and epoch_itr.end_of_epoch() and saves(cfg, trainer):
            return save_more(save_checkpoint, cfg, trainer, epoch_itr, val_loss, more)
        return save_checkpoint(cfg, trainer, epoch_itr, val_loss)

    return wrapped


def _save_update_checkpoint(
    cfg: Any, trainer: Any, epoch_itr: Any, val_loss: float | None, saved: str | None
) -> str:
    """Write the checkpoint of now, or give it a second name, and remove those over `keep_interval_updates`
    as fairseq does inside epochs; the path of the checkpoint."""
    from fairseq.checkpoint_utils import checkpoint_paths

    suffix = trainer.checkpoint_suffix
    name = f"checkpoint_{epoch_itr.epoch}_{trainer.get_num_updates()}{suffix}.pt"
    saved = save_as(name, saved, cfg, trainer, epoch_itr, val_loss)
    if cfg.keep_interval_updates > 0 and cfg.keep_interval_updates_pattern == -1:
        pattern = rf"checkpoint_\d+_(\d+){suffix}\.pt"
        for old in checkpoint_paths(cfg.save_dir, pattern=pattern)[cfg.keep_interval_updates :]:
            Path(old).unlink(missing_ok=True)
    return saved


PATCHES = (Patch("fairseq.checkpoint_utils", "save_checkpoint", _complete, Scope.ALL),)
