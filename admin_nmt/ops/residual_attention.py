"""Attention whose scores are carried from layer to layer: RealFormer (arXiv 2012.11747, section 3).

    Z_l   = q_l k_l^T / sqrt(K) + Z_{l-1}         (Z_0 = 0)
    out_l = softmax(Z_l / n + bias) v_l           n = 1 (sum), or the number of layers so far (mean)

Z is carried without masks and undivided: the masks (`bias`) and the division by n apply inside the
softmax only, so they never accumulate. The gradient of Z_l is that through its softmax plus that of
Z_{l+1}.

All of it is one autograd function. For the backward it keeps q, k, v, the weights and one byte per weight
for dropout, but no scores, which the backward does not need. The same formula as separate PyTorch
operations keeps the weights before and after dropout; see `benchmarks/residual_attention.py`.

Z is float32 for float16 and bfloat16 inputs. Largest error of a weight against float64 for scores
of standard deviation 2 that grow with the depth (`tests/ops/test_residual_attention.py` bounds it):

                      float16                            bfloat16
    layer             1        18       60               1        18       60
    mean, Z float32   5e-4     2e-4     2e-4             3e-3     2e-3     1e-3
    mean, Z in half   5e-4     6e-4     2e-3             3e-3     7e-3     1e-2
    sum, Z float32    5e-4     1e-3     1e-3             3e-3     1e-2     2e-2
    sum, Z in half    5e-4     5e-3     3e-2             3e-3     8e-2     2e-1

Half precision on CUDA goes to the Triton kernels of `admin_nmt.ops.residual_attention_triton` where
Triton is installed and the GPU is of compute capability 8.0 or above.

Shape letters: see `admin_nmt.ops`.
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from admin_nmt.ops.attention import fully_masked_queries
from admin_nmt.ops.dropout import keep_mask_for

_HALF = (torch.float16, torch.bfloat16)


def scores_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type of the carried scores for queries of type `dtype`."""
    return torch.float32 if dtype in _HALF else dtype


def _product(a: Tensor, b: Tensor, factor: float) -> Tensor:
    """`factor * a @ b` of three-dimensional tensors; the factor costs nothing."""
    if factor == 1:
        return torch.bmm(a, b)
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=factor)


def _accumulate(
    q: Tensor, k: Tensor, prev: Tensor | None, heads: int, scale: float, in_place: bool
) -> Tensor:
    """`scale * q k^T + prev`, (B, H, T, S), in place of `prev` if allowed.

    q and k are (B * H, length, K). The result is not a view, because autograd refuses to overwrite views.
    """
    if prev is None:
        shape = (q.shape[0] // heads, heads, q.shape[1], k.shape[1])
        scores = q.new_zeros(shape, dtype=scores_dtype(q.dtype))
    else:
        scores = prev if in_place else prev.clone()
    flat = scores.view(q.shape[0], q.shape[1], -1)
    if q.dtype in _HALF:
        flat.add_(_product(q, k.mT, scale))
    else:
        flat.baddbmm_(q, k.mT, beta=0 if prev is None else 1, alpha=scale)
    return scores


def _weights(scores: Tensor, bias: Tensor | None, layers: int) -> Tensor:
    """`softmax(scores / layers + bias)`, (B, H, T, S); 0 for queries that see no key."""
    if bias is not None:
        scores = torch.add(bias.to(scores.dtype), scores, alpha=1 / layers)
    elif layers > 1:
        scores = scores / layers
    weights = torch.softmax(scores, dim=-1)
    hidden = fully_masked_queries(bias)
    return weights if hidden is None else weights.masked_fill_(hidden, 0.0)


class _ResidualAttention(Function):
    """See `residual_attention`; returns out (B, H, T, K), scores and, if asked for, the weights."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        prev: Tensor | None,
        bias: Tensor | None,
        scale: float,
        layers: int,
        dropout_p: float,
        in_place: bool,
        need_weights: bool,
    ) -> tuple[Tensor, ...]:
        batch, heads, length, size = q.shape
        q, k, v = (x.reshape(batch * heads, -1, size) for x in (q, k, v))
        with torch.autocast(q.device.type, enabled=False):
            scores = _accumulate(q, k, prev, heads, scale, in_place)
            weights = _weights(scores, bias, layers).to(v.dtype)
            mask, keep_scale = keep_mask_for(weights, dropout_p)
            kept = weights if mask is None else weights * mask
            out = _product(kept.view(batch * heads, length, -1), v, keep_scale)
        if in_place and prev is not None:
            ctx.mark_dirty(prev)
        ctx.save_for_backward(q, k, v, weights, mask)
        ctx.factors = scale, layers, keep_scale, prev is not None
        ctx.set_materialize_grads(False)
        outputs = (out.view(batch, heads, length, size), scores)
        return (*outputs, weights) if need_weights else outputs

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any,
        grad_out: Tensor | None,
        grad_scores: Tensor | None,
        grad_weights: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        q, k, v, weights, mask = ctx.saved_tensors
        scale, layers, keep_scale, has_prev = ctx.factors
        shape, grad_v = weights.shape, None
        if grad_out is not None:
            grad_out = grad_out.reshape(q.shape)
            kept = weights if mask is None else weights * mask
            grad_v = _product(kept.view(q.shape[0], q.shape[1], -1).mT, grad_out, keep_scale)
            grad = _product(grad_out, v.mT, keep_scale).view(shape)
            if mask is not None:
                grad.mul_(mask)
            grad_weights = grad if grad_weights is None else grad.add_(grad_weights)
        if grad_weights is not None:
            grad_scores = _softmax_backward(grad_weights, weights, grad_scores, layers)
        if grad_scores is None:
            return (None,) * 10
        flat = grad_scores.reshape(q.shape[0], q.shape[1], -1).to(q.dtype)
        heads = (*shape[:2], -1, q.shape[2])
        return (
            _product(flat, k, scale).view(heads),
            _product(flat.mT, q, scale).view(heads),
            None if grad_v is None else grad_v.view(heads),
            grad_scores if has_prev else None,
            *(None,) * 6,
        )


def _softmax_backward(
    grad_weights: Tensor, weights: Tensor, grad_scores: Tensor | None, layers: int
) -> Tensor:
    """Gradient of the scores: through `softmax(scores / layers)`, and from the layer above."""
    dtype = scores_dtype(weights.dtype)
    grad_weights, weights = grad_weights.to(dtype), weights.to(dtype)
    grad = torch._softmax_backward_data(grad_weights, weights, -1, dtype)
    if grad_scores is not None:
        return torch.add(grad_scores, grad, alpha=1 / layers)
    return grad if layers == 1 else grad.div_(layers)


def _kernels(q: Tensor) -> ModuleType | None:
    """The module of Triton kernels if they serve queries like `q`."""
    if not q.is_cuda or q.dtype not in _HALF or q.shape[-1] > 128 or torch.version.hip:
        return None
    if torch.cuda.get_device_capability(q.device) < (8, 0) or not find_spec("triton"):
        return None
    return import_module("admin_nmt.ops.residual_attention_triton")


def residual_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prev: Tensor | None,
    bias: Tensor | None = None,
    *,
    scale: float,
    layers: int = 1,
    dropout_p: float = 0.0,
    in_place: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attend with the scores of the layers below added (formulas above).

    Args:
        q: (B, H, T, K).
        k: (B, H, S, K).
        v: (B, H, S, K).
        prev: Z of the layer below, (B, H, T, S) contiguous, in `scores_dtype(q.dtype)`; None in the
            first layer, which then is plain attention.
        bias: added to the scores for the softmax (-inf hides a position), broadcastable to
            (B, H, T, S), or None. A query from which all are hidden has weights of 0.
        scale: factor of q k^T, usually K ** -0.5.
        layers: n, by which the scores are divided for the softmax.
        dropout_p: probability with which a weight is dropped (0 outside training).
        in_place: `prev` may be overwritten and becomes the returned scores. Nothing else may need
            it: neither activation checkpointing, which keeps it, nor a caller. The Triton kernels
            keep it for their backward and never overwrite it.

    Returns:
        the context (B, H, T, K), and Z of this layer (B, H, T, S).
    """
    kernels = _kernels(q)
    if kernels is not None:
        return kernels.residual_attention(q, k, v, prev, bias, scale, layers, dropout_p)
    return _ResidualAttention.apply(q, k, v, prev, bias, scale, layers, dropout_p, in_place, False)


def residual_attention_with_weights(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prev: Tensor | None,
    bias: Tensor | None = None,
    *,
    scale: float,
    layers: int = 1,
    dropout_p: float = 0.0,
    in_place: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`residual_attention`, and the weights (B, H, T, S) before dropout as a third result."""
    in_place = in_place and _kernels(q) is None  # the layer below may have kept `prev`
    return _ResidualAttention.apply(q, k, v, prev, bias, scale, layers, dropout_p, in_place, True)
