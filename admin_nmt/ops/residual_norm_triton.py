"""Scaled residual, dropout and LayerNorm as one Triton kernel each way; formulas in `residual_norm`.

With x the shortcut, f the branch, w the factor, k the dropout mask over 1 - p, g and b the
LayerNorm's weight and bias, z = (r - mean) / sqrt(var + eps):

    r = w x + k f        n = g z + b
    dr = (g dn - mean(g dn) - z mean(g dn z)) / sqrt(var + eps)                 (means over D)
    df = k dr    dx = w dr    dw = sum x dr    dg = sum z dn    db = sum dn     (sums over rows)

Bytes, for R rows of e bytes an element (the vectors and partial sums, 12 D bytes a program of the
backward, come on top):

    forward    3 R D e: reads f and x, writes n
    backward   5 R D e: reads dn, f and x, writes df and dx; r is computed anew, not kept

Three operations one after the other take 7 R D e and a byte a mask element for the forward by the
same count (dropout 2, sum 3, LayerNorm 2). On an H200 an update of 60L-12L at D = 512 takes 79.3 ms
with these kernels and 86.1 ms without (docs/results/gpu.md).

Sums over rows are float32 and need no atomics: each program of the backward sums the rows it owns,
in order, and PyTorch adds the programs' partial sums, so equal inputs give equal bits. The mask is
drawn again from its seed (Philox, four elements a draw). All is computed in float32.

The module needs `triton`, which comes with PyTorch for CUDA. With TRITON_INTERPRET=1 set before it
is imported, the kernels run on CPU tensors.
"""

# Kernels are in Triton's language, where tensors and pointers have no Python types.
# mypy: allow-untyped-defs

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from admin_nmt.ops.dropout import mask_seed

#: Elements of one tile: 16 for each thread of four warps.
_TILE = 2048
#: Programs of the backward on each multiprocessor; each one writes partial sums of 12 D bytes.
_PROGRAMS_PER_PROCESSOR = 2
#: Arguments that differ from batch to batch: one compiled kernel for all of their values.
_VARYING = ["num_rows", "seed"]


@triton.jit
def _mask(seed, rows, p, ROWS: tl.constexpr, BLOCK: tl.constexpr, DEVICE_SEED: tl.constexpr):
    """Factors (ROWS, BLOCK) of dropout: 0 with probability p, else 1 / (1 - p).

    One draw of Philox gives four neighbours, whatever the size of the tile."""
    if DEVICE_SEED:
        seed = tl.load(seed)
    draws = rows[:, None] * (BLOCK // 4) + tl.arange(0, BLOCK // 4)[None, :]
    first, second, third, fourth = tl.rand4x(seed, draws)
    pairs = tl.join(tl.join(first, third), tl.join(second, fourth))
    uniform = tl.reshape(pairs, (ROWS, BLOCK))
    return tl.where(uniform >= p, 1 / (1 - p), 0.0)


@triton.jit
def _row_tile(pointer, stride, rows, columns, inside):
    """Tile of a matrix with contiguous rows, in float32; 0 outside."""
    place = rows[:, None].to(tl.int64) * stride + columns[None, :]
    return tl.load(pointer + place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _centred(r, inside, D, eps):
    """`r` minus the mean of its row, and 1 / sqrt(var + eps) (ROWS,)."""
    centred = tl.where(inside, r - (tl.sum(r, 1) / D)[:, None], 0.0)
    return centred, 1 / tl.sqrt_rn(tl.sum(centred * centred, 1) / D + eps)


@triton.jit(do_not_specialize=_VARYING)
def _residual_norm_forward(
    branch_ptr, shortcut_ptr, omega_ptr, weight_ptr, bias_ptr, norm_ptr, seed,
    branch_stride, shortcut_stride, num_rows, D, factor, eps, p,
    VECTOR: tl.constexpr, DROPOUT: tl.constexpr, DEVICE_SEED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: `ROWS` rows."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    column_in = columns < D
    inside = (rows < num_rows)[:, None] & column_in[None, :]
    r = _row_tile(branch_ptr, branch_stride, rows, columns, inside)
    if DROPOUT:
        r *= _mask(seed, rows, p, ROWS, BLOCK, DEVICE_SEED)
    x = _row_tile(shortcut_ptr, shortcut_stride, rows, columns, inside)
    if VECTOR:
        r += x * tl.load(omega_ptr + columns, mask=column_in, other=0.0).to(tl.float32)[None, :]
    else:
        r += x * factor
    centred, inverse = _centred(r, inside, D, eps)
    g = tl.load(weight_ptr + columns, mask=column_in, other=0.0).to(tl.float32)
    b = tl.load(bias_ptr + columns, mask=column_in, other=0.0).to(tl.float32)
    norm = centred * inverse[:, None] * g[None, :] + b[None, :]
    place = rows[:, None].to(tl.int64) * D + columns[None, :]
    tl.store(norm_ptr + place, norm.to(norm_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_VARYING)
def _residual_norm_backward(
    grad_norm_ptr, branch_ptr, shortcut_ptr, omega_ptr, weight_ptr,
    grad_branch_ptr, grad_shortcut_ptr, partial_ptr, seed,
    norm_stride, branch_stride, shortcut_stride, num_rows, D, factor, eps, p,
    VECTOR: tl.constexpr, TRAINED: tl.constexpr,
    DROPOUT: tl.constexpr, DEVICE_SEED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: every tile of `ROWS` rows whose number is its own, modulo the programs.

    `partial_ptr` is (3, programs, D): sums of the gradients of weight, bias and omega."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    columns = tl.arange(0, BLOCK)
    column_in = columns < D
    g = tl.load(weight_ptr + columns, mask=column_in, other=0.0).to(tl.float32)
    w = tl.full([BLOCK], 0.0, tl.float32) + factor
    if VECTOR:
        w = tl.load(omega_ptr + columns, mask=column_in, other=0.0).to(tl.float32)
    grad_g = tl.zeros([ROWS, BLOCK], tl.float32)
    grad_b = tl.zeros([ROWS, BLOCK], tl.float32)
    grad_w = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(program * ROWS, num_rows, programs * ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < num_rows)[:, None] & column_in[None, :]
        grad_norm = _row_tile(grad_norm_ptr, norm_stride, rows, columns, inside)
        place = rows[:, None].to(tl.int64) * D + columns[None, :]
        r = _row_tile(branch_ptr, branch_stride, rows, columns, inside)
        if DROPOUT:
            mask = _mask(seed, rows, p, ROWS, BLOCK, DEVICE_SEED)
            r *= mask
        x = _row_tile(shortcut_ptr, shortcut_stride, rows, columns, inside)
        r += x * w[None, :]
        centred, inverse = _centred(r, inside, D, eps)
        z = centred * inverse[:, None]
        grad_b += grad_norm
        grad_g += grad_norm * z
        grad_z = grad_norm * g[None, :]
        grad_r = (
            grad_z - (tl.sum(grad_z, 1) / D)[:, None] - z * (tl.sum(grad_z * z, 1) / D)[:, None]
        )
        grad_r *= inverse[:, None]
        if TRAINED:
            grad_w += grad_r * x
        grad_x = grad_r * w[None, :]
        tl.store(grad_shortcut_ptr + place, grad_x.to(grad_shortcut_ptr.dtype.element_ty), inside)
        if DROPOUT:
            grad_r *= mask
        tl.store(grad_branch_ptr + place, grad_r.to(grad_branch_ptr.dtype.element_ty), inside)
    own = partial_ptr + program * D + columns
    tl.store(own, tl.sum(grad_g, 0), mask=column_in)
    tl.store(own + programs * D, tl.sum(grad_b, 0), mask=column_in)
    if TRAINED:
        tl.store(own + 2 * programs * D, tl.sum(grad_w, 0), mask=column_in)


def tiles(dim: int) -> dict[str, int]:
    """Launch options for rows of `dim` elements: a row is one program's, short ones share it."""
    block = max(16, triton.next_power_of_2(dim))
    rows = max(1, min(16, _TILE // block))
    return {"ROWS": rows, "BLOCK": block, "num_warps": max(1, min(16, rows * block // 512))}


@cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of the GPU; a few for the interpreter."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


def _as_rows(x: Tensor) -> Tensor:
    """`x` (..., D) as (R, D) whose rows are contiguous; a copy only where no view is."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _result_dtype(*tensors: Tensor) -> torch.dtype:
    """What PyTorch's sum and LayerNorm give: the widest type, under autocast float32."""
    if torch.is_autocast_enabled(tensors[0].device.type):
        return torch.float32
    return torch.promote_types(tensors[0].dtype, tensors[1].dtype)


class _Fused(Function):
    """Arguments of `fused`; `seed` is that of the mask, a number or a tensor on the device."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        branch: Tensor,
        shortcut: Tensor,
        omega: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        factor: float,
        eps: float,
        p: float,
        dtype: torch.dtype,
        seed: int | Tensor,
    ) -> Tensor:
        shape, D = branch.shape, branch.shape[-1]
        weight, bias = weight.contiguous(), bias.contiguous()
        f, x = _as_rows(branch), _as_rows(shortcut)
        norm = torch.empty((len(f), D), dtype=dtype, device=f.device)
        sizes = tiles(D)
        if len(f):
            _residual_norm_forward[(triton.cdiv(len(f), sizes["ROWS"]),)](
                f, x, weight if omega is None else omega.contiguous(), weight, bias, norm,
                seed, f.stride(0), x.stride(0), len(f), D, factor, eps, p,
                VECTOR=omega is not None, DROPOUT=p > 0,
                DEVICE_SEED=isinstance(seed, Tensor), **sizes,
            )  # fmt: skip
        ctx.save_for_backward(
            f, x, omega, weight, seed if isinstance(seed, Tensor) and p > 0 else None
        )
        ctx.numbers, ctx.seed = (factor, eps, p), seed
        ctx.shape, ctx.dtypes = shape, (branch.dtype, shortcut.dtype, bias.dtype)
        return norm.view(shape)

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, grad_norm: Tensor
    ) -> tuple[Tensor | None, ...]:
        f, x, omega, weight, seed = ctx.saved_tensors
        seed = ctx.seed if seed is None else seed
        R, D = f.shape
        trained = omega is not None and ctx.needs_input_grad[2]
        grad_norm = _as_rows(grad_norm)
        grad_f, grad_x = (f.new_empty((R, D), dtype=dtype) for dtype in ctx.dtypes[:2])
        sizes = tiles(D)
        programs = max(1, min(
            triton.cdiv(R, sizes["ROWS"]), _PROGRAMS_PER_PROCESSOR * _processors(f.device)
        ))  # fmt: skip
        partial = f.new_empty((3 if trained else 2, programs, D), dtype=torch.float32)
        _residual_norm_backward[(programs,)](
            grad_norm, f, x, weight if omega is None else omega.contiguous(), weight,
            grad_f, grad_x, partial, seed,
            grad_norm.stride(0), f.stride(0), x.stride(0), R, D, *ctx.numbers,
            VECTOR=omega is not None, TRAINED=trained,
            DROPOUT=ctx.numbers[2] > 0, DEVICE_SEED=isinstance(seed, Tensor), **sizes,
        )  # fmt: skip
        sums = partial.sum(1)
        grad_omega = sums[2].to(omega.dtype) if trained else None
        grads = (grad_f.view(ctx.shape), grad_x.view(ctx.shape), grad_omega)
        return *grads, sums[0].to(weight.dtype), sums[1].to(ctx.dtypes[2]), *(None,) * 5


def fused(
    branch: Tensor,
    shortcut: Tensor,
    factor: Tensor | float,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dropout_p: float,
) -> Tensor:
    """`admin_nmt.ops.residual_norm.residual_norm`, whose arguments it takes, as one kernel each way.

    Tensors are float16, bfloat16 or float32, also of different types; any strides.
    """
    omega = factor if isinstance(factor, Tensor) else None
    number = 1.0 if isinstance(factor, Tensor) else float(factor)
    seed = mask_seed(branch.device) if dropout_p > 0 else 0
    norm: Tensor = _Fused.apply(
        branch, shortcut, omega, weight, bias, number, eps, dropout_p,
        _result_dtype(branch, shortcut), seed,
    )  # fmt: skip
    return norm
