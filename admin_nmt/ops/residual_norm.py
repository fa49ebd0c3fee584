"""Residual connection and LayerNorm of a sublayer in one operation.

    r = factor * shortcut + dropout(branch)          factor: omega (D,), or one constant number
    n = (r - mean(r)) / sqrt(var(r) + eps) * weight + bias

This is the end of a post-LN sublayer, ADMIN included (arXiv 2004.08249, section 4). In a pre-LN layer
sum and LayerNorm belong to different sublayers, and ReZero has no LayerNorm: they are not fused.

On the CPU, and wherever Triton is missing, these are the three operations one after the other,
exactly what the separate modules compute. On CUDA they are one kernel each way
(`admin_nmt.ops.residual_norm_triton`), where r is not rounded between sum and LayerNorm.

Shape letters: see `admin_nmt.ops`.
"""

import logging
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from admin_nmt.ops.dropout import dropout

logger = logging.getLogger(__name__)

#: One row must fit into the registers of one program.
_LARGEST_ROW = 16384


def add_scaled(branch: Tensor, shortcut: Tensor, factor: Tensor | float) -> Tensor:
    """`factor * shortcut + branch`, both (..., D); `factor` is (D,) or a number."""
    if isinstance(factor, Tensor):
        return torch.addcmul(branch, shortcut, factor)
    if factor == 1:
        return shortcut + branch
    return torch.add(branch, shortcut, alpha=factor)


@cache
def _triton() -> ModuleType | None:
    """The kernels, or None where there is no Triton."""
    try:
        return import_module("admin_nmt.ops.residual_norm_triton")
    except ImportError:
        logger.info("Triton is not installed: residual connection and LayerNorm are not fused")
        return None


def _kernels(branch: Tensor) -> ModuleType | None:
    """The kernels if they serve `branch`."""
    if not branch.is_cuda or branch.dtype == torch.float64 or branch.shape[-1] > _LARGEST_ROW:
        return None
    return _triton()


def residual_norm(
    branch: Tensor,
    shortcut: Tensor,
    factor: Tensor | float,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dropout_p: float = 0.0,
) -> Tensor:
    """`LayerNorm(factor * shortcut + dropout(branch))`, the end of a post-LN sublayer.

    Args:
        branch: f(x), (..., D), before its dropout.
        shortcut: x, (..., D).
        factor: omega (D,), or a constant number.
        weight: gamma of the LayerNorm, (D,).
        bias: its beta, (D,).
        eps: added to the variance.
        dropout_p: probability with which an element of `branch` is dropped (0 outside training).

    Returns:
        (..., D).
    """
    kernels = _kernels(branch)
    if kernels is not None:
        fused: Tensor = kernels.fused(branch, shortcut, factor, weight, bias, eps, dropout_p)
        return fused
    total = add_scaled(dropout(branch, dropout_p), shortcut, factor)
    return F.layer_norm(total, total.shape[-1:], weight, bias, eps)
