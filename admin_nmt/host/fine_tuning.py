"""`--finetune-from-model` starts the training that it names.

fairseq takes the file only where `--save-dir` has no `checkpoint_last.pt`, so that a job which is started
again goes on; a folder with another training then goes on with that one.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.errors import UserError
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope


def _its_own_training(load_checkpoint: Callable) -> Callable:
    """`--finetune-from-model` is refused where `--save-dir` holds a training that began otherwise; fairseq
    would go on with that one, and says so only by the name of the file."""

    @wraps(load_checkpoint)
    def wrapped(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
        last = Path(cfg.save_dir) / f"checkpoint_last{trainer.checkpoint_suffix}.pt"
        start = cfg.finetune_from_model
        if start is not None and is_ours(trainer) and last.is_file():
            began = Checkpoint.open(last).setting("checkpoint", "finetune_from_model")
            if began is None or Path(began).resolve() != Path(start).resolve():
                raise UserError(
                    f"--save-dir {cfg.save_dir} holds a training that began "
                    f"{'from scratch' if began is None else f'from {began}'} ({last.name}), and it would go "
                    f"on in place of --finetune-from-model {start}: give another --save-dir, or leave "
                    "--finetune-from-model out to go on with it"
                )
        return load_checkpoint(cfg, trainer, **kwargs)

    return wrapped


PATCHES = (Patch("fairseq.checkpoint_utils", "load_checkpoint", _its_own_training, Scope.OURS),)
