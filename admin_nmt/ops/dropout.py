"""Dropout whose mask is cheap on the CPU.

PyTorch draws one float per element (`bernoulli_`), which is about 15 % of a training step on a
CPU. Here one 64-bit random integer serves four elements: its four 16-bit pieces are compared with
a threshold. The drop probability is therefore a multiple of 2**-16; kept elements are scaled by the
inverse of the probability that is really used, so the expectation is exact.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from admin_nmt.ops.recording import recorded

_LEVELS = 1 << 16
_LOWEST = -(1 << 15)


def num_dropped_levels(p: float) -> int:
    """Number of the 2**16 levels that are dropped for drop probability `p`, at most all but one.

    Examples:
        >>> num_dropped_levels(0.25), num_dropped_levels(1.0)
        (16384, 65535)
    """
    return min(round(p * _LEVELS), _LEVELS - 1)


def keep_mask(shape: torch.Size, threshold: int) -> Tensor:
    """Random boolean CPU tensor of `shape`, False with probability `threshold / 2**16`."""
    num_elements = shape.numel()
    words = torch.empty((num_elements + 3) // 4, dtype=torch.int64)
    words.random_(-(1 << 63), None)  # all 64 bits random
    pieces = words.view(torch.int16)[:num_elements]
    return (pieces >= _LOWEST + threshold).view(shape)


def keep_mask_for(x: Tensor, p: float) -> tuple[Tensor | None, float]:
    """Mask of `x`'s shape, False with probability `p` (None for p = 0), and the factor 1 / (1 - p).

    For operations that apply dropout themselves; cheap on the CPU, PyTorch's own elsewhere.
    """
    if p == 0:
        return None, 1.0
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p), 1 / (1 - p)
    threshold = num_dropped_levels(p)
    return keep_mask(x.shape, threshold), _LEVELS / (_LEVELS - threshold)


def mask_seed(device: torch.device) -> int | Tensor:
    """Seed of a dropout mask that a kernel draws itself, here and again in its backward.

    Usually a number from PyTorch's CPU generator, which costs no launch and makes nobody wait. Where
    the launch is recorded to run again (a CUDA graph, `torch.compile`), a number would be the same
    in every replay: there a tensor (1,) from the generator of `device`, drawn by the replay itself.
    Both generators are restored by activation checkpointing.
    """
    if recorded(device):
        return torch.randint(1 << 30, (1,), device=device)
    return int(torch.randint(1 << 30, ()))


class _MaskedScale(Function):
    """`x * mask * scale`, keeping one byte an element for the backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return torch.mul(x, mask).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (mask,) = ctx.saved_tensors
        return torch.mul(grad, mask).mul_(ctx.scale), None, None


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element of `x` (any shape) with probability `p` and scale the others by 1/(1-p).

    Off the CPU, and for a compiler, this is `torch.nn.functional.dropout`. `p` must lie in [0, 1).
    """
    if p == 0:
        return x
    if x.device.type != "cpu" or p >= 1 or torch.compiler.is_compiling():
        return F.dropout(x, p, training=True)
    return _MaskedScale.apply(x, *keep_mask_for(x, p))
