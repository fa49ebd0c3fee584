"""Checkpoints on today's PyTorch: read safely, written whole, sent between ranks."""

import errno
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.checkpoints.reading import CHECKPOINT_GLOBALS, unreadable_checkpoint
from admin_nmt.checkpoints.validation import require_sound
from admin_nmt.errors import UserError
from admin_nmt.host.errors import first_line
from admin_nmt.host.patch import Addition, Patch, Scope

logger = logging.getLogger(__name__)

#: Attempts to write a checkpoint and seconds between them, as in fairseq.
_ATTEMPTS = 3
_PAUSE = 2.5


def _allow_what_checkpoints_hold() -> Callable[[], None]:
    """`torch.load(weights_only=True)`, the default since PyTorch 2.6, accepts what a fairseq checkpoint
    may hold besides tensors: `argparse.Namespace` and numpy's numbers, which can run no code."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(list(CHECKPOINT_GLOBALS))

    def restore() -> None:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)

    return restore


def _explain_unreadable_checkpoints(load: Callable) -> Callable:
    """`checkpoint_utils.load_checkpoint_to_cpu` with one clear line instead of a traceback."""

    @wraps(load)
    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return load(path, *args, **kwargs)
        except Exception as error:  # PyTorch's reader stumbles over garbage in many ways
            if "out of memory" in str(error):
                raise
            raise unreadable_checkpoint(path, error) from error

    return load_checkpoint_to_cpu


def _checked_first(upgrade: Callable) -> Callable:
    """A checkpoint is checked before fairseq converts old formats, which would fail on a damaged one."""

    @wraps(upgrade)
    def wrapped(state: Any) -> Any:
        if not (isinstance(state, dict) and "shard_metadata" in state):  # may hold no parameter
            require_sound(state)
        return upgrade(state)

    return wrapped


def _broadcast_checkpoints(broadcast: Callable) -> Callable:
    """Let ranks send each other checkpoints, so that training on several ranks can resume.

    fairseq marks the places of tensors with a class of its own; only messages between ranks may
    hold it, not files, so it is allowed just here. The configuration, an OmegaConf object by then,
    is sent as the plain containers that it was in the file.
    """
    from fairseq.distributed.utils import _TensorPlaceholder
    from omegaconf import OmegaConf

    @wraps(broadcast)
    def _broadcast_object_slow(obj: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(obj, dict):
            obj = {
                key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
                for key, value in obj.items()
            }
        with torch.serialization.safe_globals([_TensorPlaceholder]):
            return broadcast(obj, *args, **kwargs)

    return _broadcast_object_slow


def _copy_whole(copy: Callable) -> Callable:
    """`PathManager.copy` to a temporary name, then renamed.

    fairseq renames the checkpoint it has written, but then copies it over `checkpoint_last.pt` and
    `checkpoint_best.pt`: killed in between, it could not resume from what is left of them.
    """

    @wraps(copy)
    def wrapped(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
        if "://" in dst_path or (not overwrite and Path(dst_path).exists()):
            return copy(src_path, dst_path, overwrite)
        temporary = f"{dst_path}.tmp"  # as fairseq names what it has not written whole
        with _nothing_partial(dst_path, temporary):
            copied = copy(src_path, temporary, overwrite=True)
            if copied:
                Path(temporary).replace(dst_path)
        return copied

    return staticmethod(wrapped)  # type: ignore[return-value]


def _written_once(save: Callable) -> Callable:
    """An attempt to write a checkpoint that failed is not followed by another into the same open file:
    that would hold a fragment, and then a whole checkpoint that nothing can read.

    `_checked_save` makes the other attempts, each in a new file.
    """

    @wraps(save)
    def _torch_persistent_save(obj: Any, f: Any) -> Any:
        return save(obj, f) if isinstance(f, str) else torch.save(obj, f)

    return _torch_persistent_save


def _checked_save(save: Callable) -> Callable:
    """Refuse to start writing a checkpoint that the disk cannot hold, and leave nothing of one that
    cannot be written to its end, in any of three attempts.

    fairseq makes them all in one file, and leaves it.
    """

    @wraps(save)
    def torch_persistent_save(obj: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        folder = Path(filename).parent
        if folder.is_dir():
            needed, free = _storage_bytes(obj, set()), shutil.disk_usage(folder).free
            if free < needed:
                raise UserError(
                    f"disk full: checkpoint {filename} needs at least {needed / 2**20:.1f} MiB, "
                    f"{free / 2**20:.1f} MiB are free; {_FREE}"
                )
        with _nothing_partial(filename, f"{filename}.tmp"):
            for _ in range(_ATTEMPTS - 1):
                try:
                    return save(obj, filename, *args, **kwargs)
                except Exception as error:
                    logger.warning(f"{filename} is written again: {first_line(error)}")
                time.sleep(_PAUSE)
            return save(obj, filename, *args, **kwargs)

    return torch_persistent_save


def _crash_as_far_as_possible(save_checkpoint: Callable) -> Callable:
    """Where `crash.pt` cannot be written that is a line in the log, and the training ends in its own error:
    a full disk would hide that gradients are NaN."""

    @wraps(save_checkpoint)
    def wrapped(self: Any, filename: str, extra_state: dict[str, Any]) -> Any:
        try:
            return save_checkpoint(self, filename, extra_state)
        except Exception as error:
            if Path(filename).name != "crash.pt":
                raise
            logger.warning(f"{filename} could not be written: {first_line(error)}")
            return None

    return wrapped


_FREE = "free some space and run the command again"


@contextmanager
def _nothing_partial(path: str, temporary: str) -> Iterator[None]:
    """Where `path` cannot be written the temporary file is removed, and a full disk (or quota) is one line."""
    try:
        yield
    except Exception as error:
        Path(temporary).unlink(missing_ok=True)
        cause: BaseException | None = error
        while cause is not None:  # PyTorch's own error comes on top of that of the system
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"disk full: {path} cannot be written; {_FREE}") from error
            cause = cause.__context__
        raise


def _storage_bytes(value: Any, seen: set[int]) -> int:
    """Bytes that PyTorch writes for the tensors inside nested containers: each storage once and whole.

    Args:
        value: tensor, container, or anything else, which counts nothing.
        seen: addresses of storages that are counted already; extended.
    """
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        if storage.data_ptr() in seen:
            return 0
        seen.add(storage.data_ptr())
        return storage.nbytes()
    children: Iterable[Any] = ()
    if isinstance(value, dict):
        children = value.values()
    elif isinstance(value, list | tuple):
        children = value
    return sum(_storage_bytes(child, seen) for child in children)


PATCHES = (
    Addition("torch.serialization.add_safe_globals", _allow_what_checkpoints_hold, Scope.FAILURES),
    Patch(
        "fairseq.checkpoint_utils",
        "load_checkpoint_to_cpu",
        _explain_unreadable_checkpoints,
        Scope.ERRORS,
    ),
    Patch("fairseq.checkpoint_utils", "_upgrade_state_dict", _checked_first, Scope.ERRORS),
    Patch("fairseq.checkpoint_utils", "_torch_persistent_save", _written_once, Scope.FAILURES),
    Patch("fairseq.checkpoint_utils", "torch_persistent_save", _checked_save, Scope.ERRORS),
    Patch("fairseq.trainer:Trainer", "save_checkpoint", _crash_as_far_as_possible, Scope.FAILURES),
    Patch(
        "fairseq.distributed.utils",
        "_broadcast_object_slow",
        _broadcast_checkpoints,
        Scope.FAILURES,
    ),
    Patch("fairseq.file_io:PathManager", "copy", _copy_whole, Scope.FAILURES),
)
