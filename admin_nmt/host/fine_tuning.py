"""`--finetune-from-model` starts the training that it names.

fairseq takes the file only where `--save-dir` has no `checkpoint_last.pt`, so that a job which is started
again goes on; a folder with another training then goes on with that one.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.checkpoints.settings import set_values
from admin_nmt.errors import UserError
from admin_nmt.host.heads import DEFAULT_RESTORE_FILE
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope


def _last(cfg: Any, trainer: Any) -> Path:
    """The checkpoint in `--save-dir` that a training goes on from when it is started again."""
    return Path(cfg.save_dir) / f"checkpoint_last{trainer.checkpoint_suffix or ''}.pt"


def begins_to_finetune(cfg: Any, trainer: Any) -> bool:
    """Whether `--finetune-from-model` is read, which it is where `--save-dir` has no checkpoint yet.

    Args:
        cfg: fairseq's options of checkpoints.
        trainer: fairseq's.
    """
    from fairseq.file_io import PathManager

    return cfg.finetune_from_model is not None and not PathManager.exists(str(_last(cfg, trainer)))


def _its_own_training(load_checkpoint: Callable) -> Callable:
    """`--finetune-from-model` is refused where `--save-dir` holds a training that began otherwise; fairseq
    would go on with that one, and says so only by the name of the file. Checkpoints say with what their
    training began also when it went on without the option."""

    @wraps(load_checkpoint)
    def wrapped(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
        last, start = _last(cfg, trainer), cfg.finetune_from_model
        if not is_ours(trainer) or cfg.restore_file != DEFAULT_RESTORE_FILE or not last.is_file():
            return load_checkpoint(cfg, trainer, **kwargs)
        began = Checkpoint.open(last).setting("checkpoint", "finetune_from_model")
        if start is not None and (began is None or Path(began).resolve() != Path(start).resolve()):
            raise UserError(
                f"--save-dir {cfg.save_dir} holds a training that began "
                f"{'without that' if began is None else f'from {began}'} ({last.name}), and it would go "
                f"on in place of --finetune-from-model {start}: give another --save-dir, or leave "
                "--finetune-from-model out to go on with it"
            )
        found = load_checkpoint(cfg, trainer, **kwargs)
        set_values(
            trainer.cfg.checkpoint, {"finetune_from_model": began}
        )  # not before: an order to fairseq
        return found

    return wrapped


PATCHES = (Patch("fairseq.checkpoint_utils", "load_checkpoint", _its_own_training, Scope.OURS),)
