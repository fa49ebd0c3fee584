"""Checkpoint files, read without running code from them.

A fairseq checkpoint holds tensors, plain containers, `argparse.Namespace` (the configuration of
models that are registered without a dataclass) and numpy's numbers (metrics). PyTorch's reader is told
to let exactly these in, and `weights_only` stays on: a file with any other pickled object is refused
before any of its code runs.
"""

import argparse
import os
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from admin_nmt.checkpoints.numbers import NUMPY_GLOBALS, ForbiddenNumbersError
from admin_nmt.checkpoints.validation import (
    UnsoundCheckpointError,
    require_sound,
)
from admin_nmt.errors import UserError


class OldMeter:
    """Stands for the meters that fairseq up to 0.9 and its forks kept in checkpoints; what they hold
    is dropped, and saved again it is an empty dictionary."""

    def __setstate__(self, state: Any) -> None:
        pass

    def __reduce__(self) -> Any:
        return OrderedDict, ()


_OLD_METERS = ("AverageMeter", "TimeMeter", "StopwatchMeter", "SumMeter")

#: All that a fairseq checkpoint may hold beyond what PyTorch allows by itself; none of it can run
#: code from the file.
CHECKPOINT_GLOBALS: tuple[Any, ...] = (
    argparse.Namespace,
    *NUMPY_GLOBALS,
    *((OldMeter, f"fairseq.meters.{name}") for name in _OLD_METERS),
    OldMeter,
)


def load_checkpoint_file(path: str | os.PathLike[str], *, mmap: bool = False) -> dict[str, Any]:
    """Read a fairseq checkpoint on the CPU as it lies on disk, without running code from it.

    Args:
        path: the file.
        mmap: leave tensors on disk until they are used.

    Returns:
        the checkpoint: `model` (state dict), `cfg` or `args`, `extra_state` and the rest.

    Raises:
        UserError: it is missing, truncated, no fairseq checkpoint, or holds foreign objects.
    """
    # Not the context manager `safe_globals`: leaving it would forbid the classes that `apply()` has
    # allowed for good.
    torch.serialization.add_safe_globals(list(CHECKPOINT_GLOBALS))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        require_sound(state)
    except Exception as error:
        raise unreadable_checkpoint(path, error) from error
    return state


def unreadable_checkpoint(path: str | os.PathLike[str], error: Exception) -> UserError:
    """One clear line for an exception that reading `path` raised."""
    if isinstance(error, UnsoundCheckpointError):
        return UserError(f"{path} is not a fairseq checkpoint: {error}")
    forbidden = re.search(r"(?i)unsupported global:? (?:global )?(\S+)", str(error))
    if forbidden:
        return UserError(
            f"refusing checkpoint {path}: it contains {forbidden[1]}, an object that no fairseq "
            "checkpoint holds and that could run code when loaded"
        )
    if isinstance(error.__cause__ or error, ForbiddenNumbersError):
        return UserError(f"refusing checkpoint {path}: it contains {error.__cause__ or error}")
    if isinstance(error, FileNotFoundError):
        return UserError(f"checkpoint not found: {path}")
    if isinstance(error, IsADirectoryError):
        return UserError(f"not a checkpoint file but a directory: {path}")
    if isinstance(error, PermissionError):
        return UserError(f"checkpoint cannot be read: {path}: permission denied")
    if isinstance(error, OSError):
        return UserError(f"checkpoint cannot be read: {path}: {error.strerror or error}")
    if Path(path).stat().st_size == 0:
        return UserError(f"checkpoint is empty (0 bytes): {path}")
    if not zipfile.is_zipfile(path) and not str(error).startswith("PytorchStreamReader"):
        return UserError(f"not a checkpoint, or one that was cut off: {path}")
    return UserError(f"checkpoint is corrupt or was cut off: {path} ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].split(". ")[0] if text else type(error).__name__


def open_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint and leave its tensors on disk until they are used.

    Raises:
        UserError: missing, corrupt or cut off, or no fairseq checkpoint.
    """
    path = Path(path)
    state = load_checkpoint_file(path, mmap=path.is_file() and _can_be_mapped(path))
    for name, value in state["model"].items():
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f"{path}: model entry {name} is not a tensor; fairseq can load it, the tools here "
                "read weights alone"
            )
    return state


def _can_be_mapped(path: Path) -> bool:
    """Whether PyTorch can map a file: one in its zip format (since 1.6), under a name that is text."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"
