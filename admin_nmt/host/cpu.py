"""Options that fairseq offers, where it takes a GPU or TPU for granted."""

import argparse
import logging
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from admin_nmt.host.command_line import words_given
from admin_nmt.host.patch import Patch, Scope
from admin_nmt.host.updates import UpdateLeftOutError, saved_aggregators
from admin_nmt.installed import memory_bytes

logger = logging.getLogger(__name__)

#: Read by oneDNN when it builds its first kernel: how many it keeps (1,024 by default).
KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
#: About what a kernel takes.
_KERNEL_BYTES = 1 << 20
_MOST_KERNELS = 40_000


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
        if getattr(args, "bf16", False) and "--tpu" not in words_given(input_args):
            args.tpu = False
        return result

    return parse_args_and_arch


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


class _OverflowError(UpdateLeftOutError):
    """Gradients overflow in 16 bits; the loss scale has been lowered."""


def _overflow_seen(clip_grad_norm: Callable) -> Callable:
    """`--fp16` on the CPU: fairseq's way to leave out an update whose gradients overflow asks for CUDA
    and ends in a traceback; this one does not."""

    @wraps(clip_grad_norm)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return clip_grad_norm(self, *args, **kwargs)
        except OverflowError as error:
            if self.cuda:
                raise
            raise _OverflowError(str(error)) from error

    return wrapped


def _overflow_left_out(train_step: Callable) -> Callable:
    """`--fp16` on the CPU: an update whose gradients overflow is left out, as on a GPU."""

    @wraps(train_step)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        restore_log = saved_aggregators()
        try:
            return train_step(self, *args, **kwargs)
        except _OverflowError as error:
            restore_log()
            logger.info(f"NOTE: gradient overflow detected, ignoring gradient, {error}")
            self.zero_grad()
            return None

    return wrapped


def _room_for_kernels(init: Callable) -> Callable:
    """16-bit trainings on the CPU: oneDNN builds a kernel for each shape of a product, which takes ten
    times as long as the product, and caches 1,024, fewer than one epoch needs. It may cache more, up to a
    quarter of the memory; a number in ONEDNN_PRIMITIVE_CACHE_CAPACITY takes precedence."""

    @wraps(init)
    def __init__(self: Any, cfg: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        common = cfg.common
        if common.cpu and (common.bf16 or common.fp16):
            kernels = min(_MOST_KERNELS, memory_bytes() // 4 // _KERNEL_BYTES)
            os.environ.setdefault(KERNELS, str(max(kernels, 1024)))
        init(self, cfg, *args, **kwargs)

    return __init__


_TRAINER = "fairseq.trainer:Trainer"
PATCHES = (
    Patch("fairseq.options", "parse_args_and_arch", _bf16_without_tpu, Scope.FAILURES),
    Patch("fairseq.models", "DistributedFairseqModel", _ddp_on_cpu, Scope.FAILURES),
    Patch(
        "fairseq.optim.fp16_optimizer:FP16Optimizer",
        "build_optimizer",
        _fp16_on_cpu,
        Scope.FAILURES,
    ),
    Patch(_TRAINER, "__init__", _room_for_kernels, Scope.ALL),
    Patch(_TRAINER, "clip_grad_norm", _overflow_seen, Scope.FAILURES),
    Patch(_TRAINER, "train_step", _overflow_left_out, Scope.FAILURES),
)
