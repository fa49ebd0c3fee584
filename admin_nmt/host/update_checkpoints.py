"""An update checkpoint that falls on an epoch's last update is written too.

fairseq writes `checkpoint_E_U.pt` only inside epochs, because the end of one has `checkpointE.pt`.
Under `--no-epoch-checkpoints` it has none, and averaging the last update checkpoints would miss one.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from admin_nmt.host.patch import Patch, Scope


def _complete(save_checkpoint: Callable) -> Callable:
    """`checkpoint_E_U.pt` is written also where update U ends epoch E, under
    `--no-epoch-checkpoints`; averaging the last update checkpoints would miss it."""

    @wraps(save_checkpoint)
    def wrapped(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> Any:
        saved = save_checkpoint(cfg, trainer, epoch_itr, val_loss)
        due = cfg.save_interval_updates > 0 and (
            trainer.get_num_updates() % cfg.save_interval_updates == 0
        )
        if saved and due and cfg.no_epoch_checkpoints and epoch_itr.end_of_epoch():
            _copy_as_update_checkpoint(cfg, trainer, epoch_itr.epoch, Path(saved))
        return saved

    return wrapped


def _copy_as_update_checkpoint(cfg: Any, trainer: Any, epoch: int, saved: Path) -> None:
    """Give the checkpoint just written a second name, and remove those over `keep_interval_updates`
    as fairseq does inside epochs."""
    from fairseq.checkpoint_utils import checkpoint_paths
    from fairseq.file_io import PathManager

    suffix = trainer.checkpoint_suffix
    name = f"checkpoint_{epoch}_{trainer.get_num_updates()}{suffix}.pt"
    PathManager.copy(str(saved), str(saved.parent / name), overwrite=True)
    if cfg.keep_interval_updates > 0 and cfg.keep_interval_updates_pattern == -1:
        pattern = rf"checkpoint_\d+_(\d+){suffix}\.pt"
        for old in checkpoint_paths(cfg.save_dir, pattern=pattern)[cfg.keep_interval_updates :]:
            Path(old).unlink(missing_ok=True)


PATCHES = (Patch("fairseq.checkpoint_utils", "save_checkpoint", _complete, Scope.ALL),)
