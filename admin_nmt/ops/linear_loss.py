"""Output projection and loss in one operation that never builds all logits.

The logits, their softmax and the loss are the largest tensors of a translation model: (tokens, V) several
times over. Here a chunk of tokens is projected, its loss and the gradient of its logits are computed in
place, and this gradient is at once multiplied into the gradients of features and weight; then the next
chunk uses the same memory. The gradients are thus known after the forward pass, and the backward pass
only scales them.

What happens to one chunk, and the formulas, are in `admin_nmt.ops.loss_chunk`.
`admin_nmt.ops.rdrop.rdrop_loss` computes the same directly from log-probabilities. A single pass can have
a teacher (`admin_nmt.ops.distillation`).

Tokens that do not count (padding) are left out on the CPU, which saves time. On a GPU the CPU would have
to wait for their number before it could launch anything else, so there they are computed with the others
and masked (their target is -1); likewise where operations are recorded, to be replayed for other batches.

Shape letters: see `admin_nmt.ops`; N tokens, m passes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from admin_nmt.ops.distillation import Teacher
from admin_nmt.ops.label_smoothing import LabelSmoothing
from admin_nmt.ops.loss_chunk import LossOptions, Workspace
from admin_nmt.ops.rdrop import LossSums
from admin_nmt.ops.recording import recorded

#: Logits in one chunk. 16 MiB of float32 stay in a CPU's outer cache; a GPU needs large products.
_CHUNK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}
#: With fewer tokens a chunk, updating the weight's gradient (which reads and writes all of it) costs too much.
_MIN_CHUNK_TOKENS = 128
#: float16 ends at 65,504, which a product over more rows of that many times the gradient may reach.
_MAX_FLOAT16_ROWS = 2048


def linear_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    smoothing: LabelSmoothing,
    ignore_index: int | None = None,
    chunk_tokens: int | None = None,
    count_correct: bool = False,
) -> LossSums:
    """Label-smoothed cross-entropy of `features @ weight.T + bias`, summed over tokens.

    Args:
        features: (..., D).
        weight: (V, D).
        bias: (V,) or None.
        target: (...), indices of the true types.
        smoothing: label smoothing.
        ignore_index: tokens with this target do not count (padding).
        chunk_tokens: tokens projected at a time; default by size and device.
        count_correct: also count the tokens whose most likely type is the true one.
    """
    return linear_rdrop(
        features.unsqueeze(0),
        weight,
        bias,
        target,
        smoothing,
        0.0,
        ignore_index,
        chunk_tokens,
        count_correct,
    )


def linear_rdrop(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    smoothing: LabelSmoothing,
    alpha: float,
    ignore_index: int | None = None,
    chunk_tokens: int | None = None,
    count_correct: bool = False,
) -> LossSums:
    """R-Drop's objective of m passes over the same tokens, summed over passes and tokens.

    Gradients reach `features`, `weight` and `bias` through the result's `loss`; `nll` and `kl` are
    for logging. Products run in the dtype of `features` (or autocast's), sums in float32 at least.

    Args:
        features: (m, ..., D).
        weight: (V, D).
        bias: (V,) or None.
        target: (...), indices of the true types, the same for all passes.
        smoothing: label smoothing.
        alpha: weight of the divergence between the passes.
        ignore_index: tokens with this target do not count (padding).
        chunk_tokens: tokens projected at a time; default by size and device.
        count_correct: also count the tokens whose most likely type is the true one.

    Raises:
        ValueError: shapes do not fit each other.
    """
    return _linear_loss(
        features, weight, bias, target, smoothing, alpha, None, ignore_index, chunk_tokens, count_correct
    )  # fmt: skip


def linear_distillation(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    smoothing: LabelSmoothing,
    teacher: Teacher,
    ignore_index: int | None = None,
    chunk_tokens: int | None = None,
    count_correct: bool = False,
) -> LossSums:
    """Likelihood and word-level distillation (`admin_nmt.ops.distillation`), summed over tokens.

    The teacher's logits are made chunk by chunk as well. Gradients reach the student's `features`,
    `weight` and `bias` only.

    Args:
        features: (..., D), the student's.
        weight: (V, D).
        bias: (V,) or None.
        target: (...), indices of the true types.
        smoothing: label smoothing of the likelihood term.
        teacher: features (..., D_t) of the same tokens, its output projection, and its share.
        ignore_index: tokens with this target do not count (padding).
        chunk_tokens: tokens projected at a time; default by size and device.
        count_correct: also count the tokens whose most likely type is the true one.

    Raises:
        ValueError: shapes do not fit each other.
    """
    if teacher.features.shape[:-1] != target.shape or len(teacher.weight) != len(weight):
        raise ValueError(
            f"the teacher's features {tuple(teacher.features.shape)} and weight "
            f"{tuple(teacher.weight.shape)} do not fit target {tuple(target.shape)} and "
            f"weight {tuple(weight.shape)}"
        )
    teacher = teacher._replace(features=teacher.features.flatten(0, -2))
    return _linear_loss(
        features.unsqueeze(0), weight, bias, target, smoothing, 0.0, teacher, ignore_index,
        chunk_tokens, count_correct,
    )  # fmt: skip


def _linear_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    smoothing: LabelSmoothing,
    alpha: float,
    teacher: Teacher | None,
    ignore_index: int | None,
    chunk_tokens: int | None,
    count_correct: bool,
) -> LossSums:
    """The losses above, of features (m, ..., D); with a teacher, m is 1."""
    if features.shape[1:-1] != target.shape or features.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"features {tuple(features.shape)}, weight {tuple(weight.shape)} and "
            f"target {tuple(target.shape)} do not fit"
        )
    device = features.device.type
    if torch.is_autocast_enabled(device):
        # The weight is rounded for the products only: its gradient keeps the type of the weight.
        features = features.to(torch.get_autocast_dtype(device))
    target = target.reshape(-1)
    keep, masked = None, False
    if ignore_index is not None and _leaves_out(features.device):
        keep = target.ne(ignore_index).nonzero().squeeze(1)
        target = target[keep]
    elif ignore_index is not None:
        target, masked = target.masked_fill(target.eq(ignore_index), -1), True
    m, V = features.shape[0], weight.shape[0]
    if chunk_tokens is None:
        chunk_tokens = default_chunk_tokens(m, V, device, features.dtype)
    options = LossOptions(
        smoothing, float(alpha), teacher, chunk_tokens, count_correct, masked, torch.is_grad_enabled()
    )  # fmt: skip
    with torch.autocast(device, enabled=False):
        loss, nll, kl, correct = _LinearLoss.apply(
            features.reshape(m, -1, features.shape[-1]), weight, bias, target, keep, options
        )
    return LossSums(loss, nll, kl, correct if count_correct else None)


def _leaves_out(device: torch.device) -> bool:
    """Whether ignored tokens are left out, else masked: see the module's description."""
    return device.type == "cpu" and not recorded(device)


def default_chunk_tokens(passes: int, num_types: int, device: str, dtype: torch.dtype) -> int:
    """Tokens projected at a time, each in `passes` rows, onto `num_types` logits."""
    elements = _CHUNK_ELEMENTS.get(device, _CHUNK_ELEMENTS["cuda"])
    tokens = max(_MIN_CHUNK_TOKENS, elements // (passes * num_types))
    if dtype == torch.float16:
        tokens = min(tokens, max(1, _MAX_FLOAT16_ROWS // passes))
    return tokens


class _LinearLoss(Function):
    """Loss and gradients, chunk by chunk. Features (m, R, D), of whose R rows `keep` (N,) count."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target: Tensor,
        keep: Tensor | None,
        options: LossOptions,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # `needs_input_grad` knows nothing of `torch.no_grad`, the option nothing of the inputs.
        wanted = [options.gradients and needed for needed in ctx.needs_input_grad[:3]]
        kept = features if keep is None else features.index_select(1, keep)
        size = min(options.chunk_tokens, max(len(target), 1))
        teacher = options.teacher
        if teacher is not None and keep is not None:
            teacher = teacher._replace(features=teacher.features.index_select(0, keep))
        work = Workspace(features, weight, bias, size, wanted, options)
        # (N, m, D): the rows of one chunk are contiguous, and their gradients take their place.
        m, N, D = kept.shape
        x = kept.new_empty((N, m, D), dtype=work.product_dtype).copy_(kept.transpose(0, 1))
        if options.masked:  # what stands at padding may be anything: no NaN shall leave it
            x.masked_fill_(target.lt(0)[:, None, None], 0.0)
        sums = features.new_zeros(4, dtype=torch.float64)
        for start in range(0, N, size):
            rows, y = x[start : start + size], target[start : start + size]
            work.project(rows)
            if options.count_correct:
                sums[3] += work.correct(y)
            if teacher is None:
                sums[:3] += work.loss(y)
            else:
                logits = teacher.logits(teacher.features[start : start + size])
                sums[:3] += work.distillation(y, logits)
            work.accumulate(rows)
        ctx.save_for_backward(x if wanted[0] else None, keep, *work.gradients())
        ctx.shape, ctx.scale = features.shape, work.scale
        ctx.dtypes = features.dtype, weight.dtype, None if bias is None else bias.dtype
        loss, nll, kl, correct = sums.to(work.sum_dtype).unbind()
        ctx.mark_non_differentiable(nll, kl, correct)
        return loss, nll, kl, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple:  # type: ignore[override]
        x_grad, keep, weight_grad, bias_grad = ctx.saved_tensors
        dtypes = ctx.dtypes
        grad = grad / ctx.scale
        features = None
        if x_grad is not None:
            # Scale in float32 (`grad` has no dimensions and would not widen float16).
            scaled = (x_grad.to(grad.dtype) * grad).to(dtypes[0]).transpose(0, 1)
            if keep is None:
                features = scaled.contiguous()
            else:
                features = scaled.new_zeros(ctx.shape).index_copy_(1, keep, scaled)
        weight = None if weight_grad is None else (weight_grad * grad).to(dtypes[1])
        bias = None if bias_grad is None else (bias_grad * grad).to(dtypes[2])
        return features, weight, bias, None, None, None
