"""What fairseq needs on today's PyTorch, and nothing else.

fairseq-fixed 0.12.3.1 was written before torch 2.6 made `torch.load(weights_only=True)` the
default. Its checkpoints hold tensors, plain containers and one class, `argparse.Namespace` (the
configuration of models that are registered without a dataclass). `apply()` allows exactly that one
and leaves `weights_only` on: a checkpoint with any other pickled object is refused before any of
its code runs.
"""

import argparse
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from admin_nmt.errors import UserError

#: Every class that a fairseq checkpoint may hold beyond what PyTorch allows by itself.
CHECKPOINT_GLOBALS = (argparse.Namespace,)


def apply() -> None:
    """Patch fairseq in place; calling it again changes nothing."""
    torch.serialization.add_safe_globals(list(CHECKPOINT_GLOBALS))

    from fairseq import checkpoint_utils, options

    _wrap_once(checkpoint_utils, "load_checkpoint_to_cpu", _explain_unreadable_checkpoints)
    _wrap_once(options, "parse_args_and_arch", _bf16_without_tpu)


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
    with torch.serialization.safe_globals(list(CHECKPOINT_GLOBALS)):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except Exception as error:
            raise unreadable_checkpoint(path, error) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise UserError(f"{path} is not a fairseq checkpoint: it holds no model")
    return state


def unreadable_checkpoint(path: str | os.PathLike[str], error: Exception) -> UserError:
    """One clear line for an exception that `torch.load` raised on `path`."""
    forbidden = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
    if forbidden:
        return UserError(
            f"refusing checkpoint {path}: it contains {forbidden[1]}, an object that no fairseq "
            "checkpoint holds and that could run code when loaded"
        )
    if isinstance(error, FileNotFoundError):
        return UserError(f"checkpoint not found: {path}")
    if isinstance(error, IsADirectoryError):
        return UserError(f"not a checkpoint file but a directory: {path}")
    if isinstance(error, PermissionError):
        return UserError(f"checkpoint cannot be read: {path}: permission denied")
    if Path(path).stat().st_size == 0:
        return UserError(f"checkpoint is empty (0 bytes): {path}")
    if isinstance(error, pickle.UnpicklingError) and not zipfile.is_zipfile(path):
        return UserError(f"not a checkpoint, or one that was cut off: {path}")
    return UserError(f"checkpoint is corrupt or was cut off: {path} ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else type(error).__name__)[:160]


def _wrap_once(owner: Any, name: str, decorator: Callable[[Callable], Callable]) -> None:
    """Replace `owner.name` by its decorated form unless that has been done before."""
    original = getattr(owner, name)
    if not hasattr(original, "_admin_nmt_original"):
        wrapped = decorator(original)
        wrapped._admin_nmt_original = original  # type: ignore[attr-defined]
        setattr(owner, name, wrapped)


def _explain_unreadable_checkpoints(load: Callable) -> Callable:
    """`checkpoint_utils.load_checkpoint_to_cpu` with one clear line instead of a traceback."""

    @wraps(load)
    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return load(path, *args, **kwargs)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError) as error:
            if "out of memory" in str(error):
                raise
            raise unreadable_checkpoint(path, error) from error

    return load_checkpoint_to_cpu


def _bf16_without_tpu(parse: Callable) -> Callable:
    """Let `--bf16` run on CPUs and GPUs.

    fairseq's command line takes `--bf16` for a wish to run on a TPU and then stops for lack of
    torch_xla; its trainer has no such need. The wish is kept where `--tpu` says so.
    """

    @wraps(parse)
    def parse_args_and_arch(
        parser: argparse.ArgumentParser, input_args: list[str] | None = None, *rest: Any, **kw: Any
    ) -> Any:
        result = parse(parser, input_args, *rest, **kw)
        args = result[0] if isinstance(result, tuple) else result
        given = sys.argv[1:] if input_args is None else input_args
        if getattr(args, "bf16", False) and "--tpu" not in given:
            args.tpu = False
        return result

    return parse_args_and_arch
