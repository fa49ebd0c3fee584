"""What fairseq needs on today's PyTorch and on machines without a GPU, and nothing else.

fairseq-fixed 0.12.3.1 was written before torch 2.6 made `torch.load(weights_only=True)` the
default. Its checkpoints hold tensors, plain containers, `argparse.Namespace` (the configuration of
models that are registered without a dataclass) and numpy's numbers (metrics). `apply()` allows
exactly these and leaves `weights_only` on: a checkpoint with any other pickled object is refused
before any of its code runs.

The other patches let options that fairseq offers work where it takes a GPU or TPU for granted:
`--bf16`, `--fp16` and `--ddp-backend pytorch_ddp` on the CPU; that no sentence of a data set is left
out; that a run killed while it saves leaves whole checkpoints; and that training which stops in the
middle of an epoch exits with 0. Each is described at its function.
"""

import argparse
import atexit
import os
import queue
import re
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from admin_nmt.checkpoints.numbers import NUMPY_GLOBALS, ForbiddenNumbersError
from admin_nmt.checkpoints.validation import UnsoundCheckpointError, require_sound
from admin_nmt.errors import UserError

#: All that a fairseq checkpoint may hold beyond what PyTorch allows by itself; none of it can run
#: code from the file.
CHECKPOINT_GLOBALS: tuple[Any, ...] = (argparse.Namespace, *NUMPY_GLOBALS)


def apply() -> None:
    """Patch fairseq in place; calling it again changes nothing."""
    torch.serialization.add_safe_globals(list(CHECKPOINT_GLOBALS))

    from fairseq import checkpoint_utils, models, options
    from fairseq.data import LanguagePairDataset, bucket_pad_length_dataset, data_utils
    from fairseq.distributed import utils as distributed_utils
    from fairseq.file_io import PathManager
    from fairseq.optim.fp16_optimizer import FP16Optimizer

    _wrap_once(checkpoint_utils, "load_checkpoint_to_cpu", _explain_unreadable_checkpoints)
    _wrap_once(checkpoint_utils, "_upgrade_state_dict", _checked_first)
    _wrap_once(options, "parse_args_and_arch", _bf16_without_tpu)
    _wrap_once(data_utils, "batch_by_size", _keep_last_batch)
    _wrap_once(bucket_pad_length_dataset, "get_buckets", _buckets_of_numpy_2)
    _wrap_once(LanguagePairDataset, "__init__", _with_numpy_compat)
    _wrap_once(distributed_utils, "_broadcast_object_slow", _broadcast_checkpoints)
    _wrap_once(models, "DistributedFairseqModel", _ddp_on_cpu)
    _wrap_once(FP16Optimizer, "build_optimizer", _fp16_on_cpu)
    _wrap_once(PathManager, "copy", _copy_whole)
    atexit.unregister(_stop_reading_ahead)
    atexit.register(_stop_reading_ahead)


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
    if Path(path).stat().st_size == 0:
        return UserError(f"checkpoint is empty (0 bytes): {path}")
    if not zipfile.is_zipfile(path) and not str(error).startswith("PytorchStreamReader"):
        return UserError(f"not a checkpoint, or one that was cut off: {path}")
    return UserError(f"checkpoint is corrupt or was cut off: {path} ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].split(". ")[0] if text else type(error).__name__


def _wrap_once(owner: Any, name: str, decorator: Callable[[Callable], Callable]) -> None:
    """Replace `owner.name` by its decorated form unless that has been done before."""
    original = getattr(owner, name)
    if not hasattr(original, "_admin_nmt_patch"):
        wrapped = decorator(original)
        getattr(wrapped, "__func__", wrapped)._admin_nmt_patch = True  # type: ignore[union-attr]
        setattr(owner, name, wrapped)


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
    """fairseq brings old checkpoints up to date before anybody could look at them."""

    @wraps(upgrade)
    def wrapped(state: Any) -> Any:
        if not (isinstance(state, dict) and "shard_metadata" in state):  # may hold no parameter
            require_sound(state)
        return upgrade(state)

    return wrapped


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


def _ddp_on_cpu(wrap: Callable) -> Callable:
    """`--ddp-backend pytorch_ddp` on the CPU, where PyTorch takes no device number."""
    from fairseq.distributed import ModuleProxyWrapper
    from torch.nn.parallel import DistributedDataParallel

    @wraps(wrap)
    def DistributedFairseqModel(args: Any, model: Any, process_group: Any, device: Any) -> Any:  # noqa: N802
        if torch.device(device).type != "cpu" or args.ddp_backend not in ("c10d", "pytorch_ddp"):
            return wrap(args, model, process_group, device)
        return ModuleProxyWrapper(
            DistributedDataParallel(
                module=model,
                broadcast_buffers=args.broadcast_buffers,
                bucket_cap_mb=args.bucket_cap_mb,
                process_group=process_group,
                find_unused_parameters=args.find_unused_parameters,
                gradient_as_bucket_view=args.gradient_as_bucket_view,
            )
        )

    return DistributedFairseqModel


def _fp16_on_cpu(build: Callable) -> Callable:
    """`--fp16` on the CPU: flat gradients ask CUDA for a device, `--fp16-no-flatten-grads` do not."""

    def build_optimizer(cls: Any, cfg: Any, params: Any, **kwargs: Any) -> Any:
        params = list(params)
        if params and params[0].device.type == "cpu":
            cfg.common.fp16_no_flatten_grads = True
        return build.__func__(cls, cfg, params, **kwargs)  # type: ignore[attr-defined]

    return classmethod(build_optimizer)  # type: ignore[return-value]


def _buckets_of_numpy_2(get_buckets: Callable) -> Callable:
    """`--num-batch-buckets`: numpy 2.4 has no `interpolation` in `percentile` any more."""

    @wraps(get_buckets)
    def wrapped(sizes: Any, num_buckets: int) -> Any:
        places = np.linspace(0, 100, num_buckets + 1)
        return np.unique(np.percentile(sizes, places, method="lower")[1:])

    return wrapped


def _with_numpy_compat(init: Callable) -> Callable:
    """`--num-batch-buckets`: the constructor asks for `numpy.compat.long`, gone since numpy 2."""

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if hasattr(np, "compat"):
            init(self, *args, **kwargs)
            return
        np.compat = SimpleNamespace(long=np.int64)  # type: ignore[attr-defined]
        try:
            init(self, *args, **kwargs)
        finally:
            del np.compat  # type: ignore[attr-defined]

    return wrapped


def _keep_last_batch(batch_by_size: Callable) -> Callable:
    """Batches that hold every sentence.

    fairseq drops the last batch when its size is no multiple of `--required-batch-size-multiple`
    (default 8): up to a whole batch of a test set is then neither translated nor scored, without a
    word. The option's help promises only that batch sizes are multiples where they can be.
    """

    @wraps(batch_by_size)
    def wrapped(indices: Any, *args: Any, **kwargs: Any) -> Any:
        indices = np.fromiter(indices, dtype=np.int64, count=-1)
        if not len(indices):
            return []
        batches = batch_by_size(indices, *args, **kwargs)
        if kwargs.get("fixed_shapes") is not None:
            return batches
        num_kept = sum(len(batch) for batch in batches)
        # Batches are consecutive pieces of `indices`, so what is missing is the end.
        return [*batches, indices[num_kept:]] if num_kept < len(indices) else batches

    return wrapped


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
        copied = copy(src_path, temporary, overwrite=True)
        if copied:
            Path(temporary).replace(dst_path)
        return copied

    return staticmethod(wrapped)  # type: ignore[return-value]


def _stop_reading_ahead(patience: float = 2.0) -> None:
    """End fairseq's threads that read batches ahead, before Python ends; wait `patience` seconds.

    They are daemon threads. Python ends such a thread where it asks for the interpreter's lock; if
    that happens inside a tensor operation, C++ aborts the process ("terminate called without an
    active exception", exit code 134), although training has finished well.
    """
    from fairseq.data.iterators import BackgroundConsumer

    deadline = time.monotonic() + patience
    for thread in threading.enumerate():
        if isinstance(thread, BackgroundConsumer):
            thread._max_len = 0  # it stops after the batch in hand
            while thread.is_alive() and time.monotonic() < deadline:
                with suppress(queue.Empty):  # make room if it waits for that
                    thread._queue.get_nowait()
                thread.join(0.01)
