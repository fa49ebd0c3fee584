"""The chunk step of `admin_nmt.ops.linear_loss` as one Triton kernel for NVIDIA GPUs.

PyTorch reads and writes a chunk of logits some ten times; the kernel reads it twice and writes it
once. One program serves one token with its m passes. Its first sweep over the vocabulary keeps a
running maximum with rescaled sums (for the normaliser and the divergence), its second writes the
gradient in the dtype of the logits. Sums are float32.

Importing this module needs Triton, which comes with PyTorch's CUDA builds. Under Triton's
interpreter (`TRITON_INTERPRET=1`) the kernel also runs on the CPU, for tests.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from admin_nmt.ops.label_smoothing import LabelSmoothing

_BLOCK = 4096


@triton.jit
def _linear_loss(  # type: ignore[no-untyped-def]
    logits,  # (c, M, V), overwritten by the gradient times `scale`
    targets,  # (c,), negative where the token does not count
    stats,  # (c, 3): loss, nll, kl
    V,
    target_weight,
    each_weight,
    alpha,
    scale,
    M: tl.constexpr,
    ROWS: tl.constexpr,  # M rounded up to a power of two
    BLOCK: tl.constexpr,
    GRADIENT: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    passes = tl.arange(0, ROWS)
    real = passes < M
    base = logits + token * M * V + passes[:, None].to(tl.int64) * V
    y = tl.load(targets + token)
    if y < 0:
        tl.store(stats + token * 3, 0.0)
        tl.store(stats + token * 3 + 1, 0.0)
        tl.store(stats + token * 3 + 2, 0.0)
        if GRADIENT:
            for start in range(0, V, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                mask = real[:, None] & (columns < V)[None, :]
                nothing = tl.zeros((ROWS, BLOCK), logits.dtype.element_ty)
                tl.store(base + columns[None, :], nothing, mask=mask)
        return
    # Before the first sweep, whose reductions make warps wait for each other: in the second one another
    # warp overwrites it.
    z_y = tl.load(base + y, mask=real[:, None], other=0.0).to(tl.float32)
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    normaliser = tl.zeros((ROWS,), tl.float32)
    moment = tl.zeros((ROWS,), tl.float32)  # sum of exp(z_i - highest) * (z_i - mean z)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, V, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < V
        mask = real[:, None] & inside[None, :]
        z = tl.load(base + columns[None, :], mask=mask, other=0.0).to(tl.float32)
        hidden = tl.where(inside[None, :], z, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(hidden, axis=1))
        rescale = tl.exp(highest - new_highest)
        e = tl.exp(hidden - new_highest[:, None])
        away = z - tl.sum(z, axis=0)[None, :] / M  # rows beyond M and columns beyond V hold zeros
        normaliser = normaliser * rescale + tl.sum(e, axis=1)
        moment = moment * rescale + tl.sum(e * away, axis=1)
        total += tl.sum(z, axis=1)
        highest = new_highest
    lse = highest + tl.log(normaliser)
    lse_away = lse - tl.sum(tl.where(real, lse, 0.0), axis=0) / M
    inner = moment / normaliser - lse_away  # <p_i, lp_i - mean lp>
    nll = lse - tl.sum(z_y, axis=1)
    nll_sum = tl.sum(tl.where(real, nll, 0.0), axis=0)
    smooth = tl.sum(tl.where(real, V * lse - total, 0.0), axis=0)
    kl = 0.0
    h = 0.0
    if M > 1:
        kl = tl.sum(tl.where(real, inner, 0.0), axis=0) / (M - 1)
        h = alpha / (M - 1)
    tl.store(stats + token * 3, target_weight * nll_sum + each_weight * smooth + alpha * kl)
    tl.store(stats + token * 3 + 1, nll_sum)
    tl.store(stats + token * 3 + 2, kl)
    if GRADIENT:
        for start in range(0, V, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            mask = real[:, None] & (columns < V)[None, :]
            z = tl.load(base + columns[None, :], mask=mask, other=0.0).to(tl.float32)
            p = tl.exp(z - lse[:, None])
            p = tl.where(mask, p, 0.0)
            away = z - tl.sum(z, axis=0)[None, :] / M - lse_away[:, None]
            gradient = (
                p * (1 + h * (away - inner[:, None] + 1)) - h * tl.sum(p, axis=0)[None, :] / M
            )
            gradient -= each_weight + tl.where(columns == y, target_weight, 0.0)[None, :]
            gradient = (gradient * scale).to(logits.dtype.element_ty)
            tl.store(base + columns[None, :], gradient, mask=mask)


def loss_and_gradient_(
    logits: Tensor,
    target: Tensor,
    smoothing: LabelSmoothing,
    alpha: float,
    scale: float = 1.0,
    gradient: bool = True,
) -> Tensor:
    """As `admin_nmt.ops.loss_chunk.loss_and_gradient_`, in one kernel.

    Args:
        logits: (c, m, V), contiguous, float32, float16 or bfloat16; with `gradient` overwritten by
            the gradient times `scale`.
        target: (c,); a token with a negative target does not count, and its gradient is 0.
        smoothing: label smoothing.
        alpha: weight of the divergence.
        scale: factor of the gradient.
        gradient: compute the gradient.

    Returns:
        (3,) float64: sums of loss, nll and kl over the chunk.
    """
    c, m, V = logits.shape
    stats = logits.new_empty((c, 3), dtype=torch.float32)
    rows = triton.next_power_of_2(m)
    _linear_loss[(c,)](
        logits,
        target,
        stats,
        V,
        smoothing.target,
        smoothing.each,
        alpha if m > 1 else 0.0,
        scale,
        M=m,
        ROWS=rows,
        BLOCK=min(triton.next_power_of_2(V), max(_BLOCK // rows, 128)),
        GRADIENT=gradient,
        num_warps=8,
    )
    return stats.sum(dim=0, dtype=torch.float64)
