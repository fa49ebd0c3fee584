"""Residual attention on CUDA as Triton kernels; the formulas are in `admin_nmt.ops.residual_attention`.

Forward: one pass over tiles of keys reads the carried scores, writes the new ones, and does the
softmax (online, with a running maximum) and the product with V; the weights are never written.
Backward: the weights come back from the saved scores and the logarithm of each row's sum; one pass
writes the gradient of the scores and accumulates those of K and V, and a matrix product turns the
gradient of the scores into that of Q. The dropout mask is drawn again from its seed.

Kept for the backward: q, k, v, the output, one float32 a row, and the scores, which are the very
tensor that the layer above reads.

The module needs `triton`, which comes with PyTorch for CUDA. With TRITON_INTERPRET=1 set before
it is imported, the kernels run on CPU tensors.
"""

# Kernels are in Triton's language, where tensors and pointers have no Python types.
# mypy: allow-untyped-defs

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from admin_nmt.ops.dropout import mask_seed

#: Arguments that differ from batch to batch: one compiled kernel for all of their values.
_VARYING = ["length", "keys", "seed", "bias_b", "bias_t"]


@triton.jit
def _raw_scores(
    q, k, offset, prev_ptr, inside, scale,
    HAS_PREV: tl.constexpr,
):  # fmt: skip
    """Tile of `scale * q k^T + prev` in float32."""
    z = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    if HAS_PREV:
        z += tl.load(prev_ptr + offset, mask=inside, other=0.0)
    return z


@triton.jit
def _logits(
    z, rows, columns, inside, bias_ptr, bias_t, bias_s, inverse_layers,
    HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """What the softmax sees of the raw scores `z`: divided, masked, -inf outside of the matrix."""
    z = z * inverse_layers
    if HAS_BIAS:
        place = rows[:, None] * bias_t + columns[None, :] * bias_s
        z += tl.load(bias_ptr + place, mask=inside, other=0.0).to(tl.float32)
    return tl.where(inside, z, float("-inf"))


@triton.jit(do_not_specialize=_VARYING)
def _residual_attention_forward(
    q_ptr, k_ptr, v_ptr, prev_ptr, bias_ptr, scores_ptr, out_ptr, logsum_ptr,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, o_b, o_h, o_t, bias_b, bias_h, bias_t, bias_s,
    heads, length, keys, size, scale, inverse_layers, dropout_p, seed,
    HAS_PREV: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    DEVICE_SEED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """One program: `ROWS` queries of one head; the grid is (B * H, tiles of queries)."""
    if DEVICE_SEED:
        seed = tl.load(seed)
    head = tl.program_id(0).to(tl.int64)
    b, h = head // heads, head % heads
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    parts = tl.arange(0, SIZE)
    row_in, part_in = rows < length, parts < size
    q_place = b * q_b + h * q_h + rows[:, None] * q_t + parts[None, :]
    q = tl.load(q_ptr + q_place, mask=row_in[:, None] & part_in[None, :], other=0.0)
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, SIZE], tl.float32)
    for start in range(0, keys, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        column_in = columns < keys
        inside = row_in[:, None] & column_in[None, :]
        tile = column_in[:, None] & part_in[None, :]
        k_place = b * k_b + h * k_h + columns[:, None] * k_t + parts[None, :]
        k = tl.load(k_ptr + k_place, mask=tile, other=0.0)
        within = rows[:, None] * keys + columns[None, :]
        offset = head * length * keys + within
        z = _raw_scores(q, k, offset, prev_ptr, inside, scale, HAS_PREV)
        tl.store(scores_ptr + offset, z, mask=inside)
        z = _logits(
            z, rows, columns, inside, bias_ptr + b * bias_b + h * bias_h, bias_t, bias_s,
            inverse_layers, HAS_BIAS,
        )  # fmt: skip
        new_highest = tl.maximum(highest, tl.max(z, 1))
        # A row may see none of the keys so far: its maximum is -inf, and -inf - -inf is NaN.
        shift = tl.where(new_highest == float("-inf"), 0.0, new_highest)
        p = tl.exp(z - shift[:, None])
        shrink = tl.exp(highest - shift)
        total = total * shrink + tl.sum(p, 1)
        if DROPOUT:
            kept = tl.rand(seed + head, within) >= dropout_p
            p = tl.where(kept, p / (1 - dropout_p), 0.0)
        v_place = b * v_b + h * v_h + columns[:, None] * v_t + parts[None, :]
        v = tl.load(v_ptr + v_place, mask=tile, other=0.0)
        out = out * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        highest = new_highest
    # A row that sees no key at all: its weights are 0 here and in the backward.
    blind = highest == float("-inf")
    total = tl.where(blind, 1.0, total)
    highest = tl.where(blind, 0.0, highest)
    tl.store(logsum_ptr + head * length + rows, highest + tl.log(total), mask=row_in)
    o_place = b * o_b + h * o_h + rows[:, None] * o_t + parts[None, :]
    out = out / total[:, None]
    tl.store(
        out_ptr + o_place, out.to(out_ptr.dtype.element_ty), mask=row_in[:, None] & part_in[None, :]
    )


@triton.jit(do_not_specialize=_VARYING)
def _residual_attention_backward(
    q_ptr, k_ptr, v_ptr, bias_ptr, scores_ptr, logsum_ptr, delta_ptr, grad_out_ptr,
    grad_above_ptr, grad_scores_ptr, grad_k_ptr, grad_v_ptr,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, g_b, g_h, g_t, bias_b, bias_h, bias_t, bias_s,
    heads, length, keys, size, scale, inverse_layers, dropout_p, seed,
    HAS_ABOVE: tl.constexpr, HAS_BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    DEVICE_SEED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """One program: `COLUMNS` keys of one head; the grid is (B * H, tiles of keys)."""
    if DEVICE_SEED:
        seed = tl.load(seed)
    head = tl.program_id(0).to(tl.int64)
    b, h = head // heads, head % heads
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    parts = tl.arange(0, SIZE)
    column_in, part_in = columns < keys, parts < size
    tile = column_in[:, None] & part_in[None, :]
    v_place = b * v_b + h * v_h + columns[:, None] * v_t + parts[None, :]
    v = tl.load(v_ptr + v_place, mask=tile, other=0.0)
    grad_k = tl.zeros([COLUMNS, SIZE], tl.float32)
    grad_v = tl.zeros([COLUMNS, SIZE], tl.float32)
    for start in range(0, length, ROWS):
        rows = start + tl.arange(0, ROWS)
        row_in = rows < length
        inside = row_in[:, None] & column_in[None, :]
        row_tile = row_in[:, None] & part_in[None, :]
        q_place = b * q_b + h * q_h + rows[:, None] * q_t + parts[None, :]
        q = tl.load(q_ptr + q_place, mask=row_tile, other=0.0)
        g_place = b * g_b + h * g_h + rows[:, None] * g_t + parts[None, :]
        grad_out = tl.load(grad_out_ptr + g_place, mask=row_tile, other=0.0)
        logsum = tl.load(logsum_ptr + head * length + rows, mask=row_in, other=0.0)
        delta = tl.load(delta_ptr + head * length + rows, mask=row_in, other=0.0)
        within = rows[:, None] * keys + columns[None, :]
        offset = head * length * keys + within
        z = tl.load(scores_ptr + offset, mask=inside, other=0.0)
        z = _logits(
            z, rows, columns, inside, bias_ptr + b * bias_b + h * bias_h, bias_t, bias_s,
            inverse_layers, HAS_BIAS,
        )  # fmt: skip
        p = tl.exp(z - logsum[:, None])
        grad_p = tl.dot(grad_out, tl.trans(v), input_precision="ieee")
        dropped = p
        if DROPOUT:
            kept = tl.rand(seed + head, within) >= dropout_p
            dropped = tl.where(kept, p / (1 - dropout_p), 0.0)
            grad_p = tl.where(kept, grad_p / (1 - dropout_p), 0.0)
        grad_v += tl.dot(tl.trans(dropped.to(v.dtype)), grad_out, input_precision="ieee")
        grad_z = p * (grad_p - delta[:, None]) * inverse_layers
        if HAS_ABOVE:
            grad_z += tl.load(grad_above_ptr + offset, mask=inside, other=0.0)
        tl.store(grad_scores_ptr + offset, grad_z, mask=inside)
        grad_k += tl.dot(tl.trans(grad_z.to(q.dtype)), q, input_precision="ieee")
    place = (head * keys + columns[:, None]) * size + parts[None, :]
    tl.store(grad_k_ptr + place, (grad_k * scale).to(grad_k_ptr.dtype.element_ty), mask=tile)
    tl.store(grad_v_ptr + place, grad_v.to(grad_v_ptr.dtype.element_ty), mask=tile)


def tiles(size: int) -> dict[str, int]:
    """Launch options for heads of `size` elements: powers of two, at least 16 as `tl.dot` wants.

    Sentences are short: a matrix of scores is one or a few tiles of 32 x 32. Larger tiles do not fit
    the registers (64 x 64, K 64: 1,752 bytes of stack a thread in the backward, compiled for sm_90),
    nor does a third stage of loads in advance, nor at K 128 tiles of 32 keys (24 to 264 bytes,
    depending on card and compiler).
    """
    padded = max(16, triton.next_power_of_2(size))
    return {
        "ROWS": 32,
        "COLUMNS": 32 if padded <= 64 else 16,
        "SIZE": padded,
        "num_warps": 4,
        "num_stages": 2,
    }


def _strides(bias: Tensor | None, shape: torch.Size) -> tuple[int, ...]:
    """Strides of `bias` when broadcast to the scores."""
    return (0, 0, 0, 0) if bias is None else bias.expand(shape).stride()


def _unit_stride(x: Tensor) -> Tensor:
    """`x` with contiguous last dimension; the projections' views have it."""
    return x if x.stride(-1) == 1 else x.contiguous()


class _Kernels(Function):
    """Argument list as in `residual_attention`; `seed` is that of the dropout mask, a number or a
    tensor (1,) on the device."""

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
        seed: int | Tensor,
    ) -> tuple[Tensor, Tensor]:
        q, k, v = (_unit_stride(x) for x in (q, k, v))
        batch, heads, length, size = q.shape
        keys = k.shape[2]
        scores = q.new_empty((batch, heads, length, keys), dtype=torch.float32)
        # Time first in memory: the caller puts heads side by side, and then needs no copy.
        out = q.new_empty((length, batch, heads, size)).permute(1, 2, 0, 3)
        logsum = q.new_empty((batch, heads, length), dtype=torch.float32)
        sizes = tiles(q.shape[-1])
        numbers = (heads, length, keys, size, scale, 1 / layers, dropout_p, seed)
        _residual_attention_forward[(batch * heads, triton.cdiv(length, sizes["ROWS"]))](
            q, k, v, scores if prev is None else prev.contiguous(), scores if bias is None else bias,
            scores, out, logsum,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
            *_strides(bias, scores.shape), *numbers,
            HAS_PREV=prev is not None, HAS_BIAS=bias is not None, DROPOUT=dropout_p > 0,
            DEVICE_SEED=isinstance(seed, Tensor), **sizes,
        )  # fmt: skip
        # Tensors only there: what autograd does not know of would outlive the graph.
        kept_seed = seed if isinstance(seed, Tensor) else None
        ctx.save_for_backward(q, k, v, bias, scores, out, logsum, kept_seed)
        ctx.numbers, ctx.has_prev = numbers[:-1], prev is not None
        ctx.seed = None if isinstance(seed, Tensor) else seed
        ctx.set_materialize_grads(False)
        return out, scores

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_out: Tensor | None, grad_above: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        q, k, v, bias, scores, out, logsum, seed = ctx.saved_tensors
        grad_out = torch.zeros_like(out) if grad_out is None else _unit_stride(grad_out)
        grad_above = None if grad_above is None else grad_above.contiguous()
        delta = (out.float() * grad_out.float()).sum(-1)
        grad_scores = torch.empty_like(scores)
        grad_k, grad_v = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (k, v))
        batch, heads, keys, _ = k.shape
        sizes = tiles(q.shape[-1])
        _residual_attention_backward[(batch * heads, triton.cdiv(keys, sizes["COLUMNS"]))](
            q, k, v, scores if bias is None else bias, scores, logsum, delta, grad_out,
            scores if grad_above is None else grad_above, grad_scores, grad_k, grad_v,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *grad_out.stride()[:3],
            *_strides(bias, scores.shape), *ctx.numbers, ctx.seed if seed is None else seed,
            HAS_ABOVE=grad_above is not None, HAS_BIAS=bias is not None,
            DROPOUT=ctx.numbers[6] > 0, DEVICE_SEED=seed is not None, **sizes,
        )  # fmt: skip
        grad_q = torch.matmul(grad_scores.to(k.dtype), k).mul_(ctx.numbers[4])
        grad_prev = grad_scores if ctx.has_prev else None
        return grad_q, grad_k, grad_v, grad_prev, *(None,) * 5


def residual_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prev: Tensor | None,
    bias: Tensor | None,
    scale: float,
    layers: int,
    dropout_p: float,
) -> tuple[Tensor, Tensor]:
    """`admin_nmt.ops.residual_attention.residual_attention` by these kernels, never in place.

    The scores are float32 whatever the type of `q`, which is float16, bfloat16 or float32.
    """
    seed = mask_seed(q.device) if dropout_p > 0 else 0
    return _Kernels.apply(q, k, v, prev, bias, scale, layers, dropout_p, seed)
