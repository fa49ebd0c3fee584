"""Output projection and loss in one operation that never builds all logits.

The projection to the vocabulary, the softmax and the loss are the largest tensors of a translation
model: (tokens, V) several times over. Here a chunk of tokens is projected, its loss and the
gradient of its logits are computed in place, and at once multiplied into the gradients of features
and weight; then the next chunk uses the same memory. The gradients are thus known after the forward
pass, and the backward pass only scales them.

With p_i the softmax of pass i, e_y the one-hot target, m passes, `smoothing` (see
`admin_nmt.ops.label_smoothing`) and R-Drop's weight alpha, the gradient of the logits of pass i is

    p_i - smoothing.target * e_y - smoothing.each
    + alpha / (m - 1) * (p_i * (d_i - <p_i, d_i> + 1) - mean_j p_j),   d_i = lp_i - mean_j lp_j

whose second line for m = 2 is the gradient of alpha * (KL(p_1||p_2) + KL(p_2||p_1)) / 2
(R-Drop, arXiv 2106.14448, eq. 2). The plain twin of all this is `admin_nmt.ops.rdrop.rdrop_loss`. For one
pass there may be a teacher in place of other passes: `admin_nmt.ops.distillation`.

Tokens that do not count (padding) are left out on the CPU, where less work is less time. Their number
decides the sizes of everything after it, so on a GPU that would mean waiting until the GPU has come
so far: there they are computed with the others and masked (their target is -1), and the host runs
ahead. So they are where operations are recorded, to be replayed for other numbers of tokens.

Shape letters: see `admin_nmt.ops`; N tokens, m passes.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from admin_nmt.ops.distillation import Teacher, distillation_and_gradient_
from admin_nmt.ops.label_smoothing import LabelSmoothing
from admin_nmt.ops.rdrop import LossSums
from admin_nmt.ops.recording import recorded

logger = logging.getLogger(__name__)

#: Logits in one chunk. 16 MiB of float32 stay in a CPU's outer cache; a GPU needs large products.
_CHUNK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}
#: Fewer tokens make the update of the weight's gradient, which reads and writes all of it, too dear.
_MIN_CHUNK_TOKENS = 128
#: float16 holds no number below 6e-8: gradients of logits are scaled up before they are rounded.
_FLOAT16_SCALE = 16.0
#: It ends at 65,504, which a product over more rows of that many times the gradient may reach.
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
        dtype = torch.get_autocast_dtype(device)
        features, weight = features.to(dtype), weight.to(dtype)
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
    options = _Options(
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


class _Options(NamedTuple):
    """What `_LinearLoss` needs besides tensors."""

    smoothing: LabelSmoothing
    alpha: float
    teacher: Teacher | None
    chunk_tokens: int
    count_correct: bool
    masked: bool
    gradients: bool


@cache
def _triton_step() -> Callable[..., Tensor] | None:
    """The fused chunk step, or None where there is no Triton."""
    try:
        from admin_nmt.ops.linear_loss_triton import loss_and_gradient_
    except ImportError:
        logger.info("Triton is not installed: the loss runs as plain PyTorch operations")
        return None
    return loss_and_gradient_


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
        options: _Options,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # `needs_input_grad` knows nothing of `torch.no_grad`, the option nothing of the inputs.
        wanted = [options.gradients and needed for needed in ctx.needs_input_grad[:3]]
        kept = features if keep is None else features.index_select(1, keep)
        size = min(options.chunk_tokens, max(len(target), 1))
        teacher = options.teacher
        if teacher is not None and keep is not None:
            teacher = teacher._replace(features=teacher.features.index_select(0, keep))
        work = _Workspace(features, weight, bias, size, wanted, fused=teacher is None)
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
                sums[:3] += work.loss(y, options)
            else:
                logits = teacher.logits(teacher.features[start : start + size])
                sums[:3] += work.distillation(y, logits, options, teacher)
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


def _product_dtype(features: Tensor) -> torch.dtype:
    """Type of the matrix products; CPUs have no float16 products worth the name."""
    widen = features.dtype == torch.float16 and features.device.type == "cpu"
    return torch.float32 if widen else features.dtype


def _add_widened_(total: Tensor, a: Tensor, b: Tensor) -> None:
    """`total` (float32) += a @ b (16 bits) in one product, nothing rounded to 16 bits between."""
    torch.addmm(total, a, b, out_dtype=total.dtype, out=total)


@cache
def _adds_widened(device_type: str, dtype: torch.dtype) -> bool:
    """Whether this PyTorch has `_add_widened_` there: from 2.8 on, on GPUs."""
    a = torch.zeros(16, 16, dtype=dtype, device=device_type)
    try:
        _add_widened_(torch.zeros(16, 16, device=device_type), a, a)
    except (TypeError, RuntimeError) as error:  # an older PyTorch, or another kind of device
        logger.debug("products of %s are rounded before they are added: %s", dtype, error)
        return False
    return True


class _Workspace:
    """Buffers for one chunk, allocated once, and the gradients that grow chunk by chunk."""

    def __init__(
        self,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: int,
        wanted: Sequence[bool],
        fused: bool = True,
    ) -> None:
        self.features_wanted, weight_wanted, bias_wanted = wanted
        self.gradient = any(wanted)
        half = features.dtype in (torch.float16, torch.bfloat16)
        self.sum_dtype = torch.float32 if half else features.dtype
        self.product_dtype = _product_dtype(features)
        self.scale = _FLOAT16_SCALE if self.product_dtype == torch.float16 else 1.0
        self.passes = features.shape[0]
        self.weight = weight.detach().to(self.product_dtype)
        self.bias = None if bias is None else bias.detach().to(self.product_dtype)
        size = tokens * self.passes * weight.shape[0]
        self.logits = features.new_empty(size, dtype=self.product_dtype)
        self.fused_step = None
        if fused and features.is_cuda and features.dtype != torch.float64:
            self.fused_step = _triton_step()
        self.wide, self.probs, self.mean = self.logits, None, None
        if self.fused_step is None:
            if self.sum_dtype != self.product_dtype:
                self.wide = features.new_empty(size, dtype=self.sum_dtype)
            if self.passes > 1:
                self.probs = torch.empty_like(self.wide)
                self.mean = self.wide.new_empty(size // self.passes)
        self.weight_grad: Tensor | None = None
        self.bias_grad: Tensor | None = None
        if weight_wanted:
            self.weight_grad = torch.zeros_like(weight, dtype=self.sum_dtype)
        if bias is not None and bias_wanted:
            self.bias_grad = torch.zeros_like(bias, dtype=self.sum_dtype)

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of weight and bias (times `scale`), None where not wanted."""
        return self.weight_grad, self.bias_grad

    def project(self, rows: Tensor) -> None:
        """Fill `chunk` (c, m, V) with the logits of `rows` (c, m, D)."""
        c, m, D = rows.shape
        V = self.weight.shape[0]
        flat = self.logits[: c * m * V].view(c * m, V)
        if self.bias is None:
            torch.mm(rows.view(c * m, D), self.weight.t(), out=flat)
        else:
            torch.addmm(self.bias, rows.view(c * m, D), self.weight.t(), out=flat)
        self.chunk = flat.view(c, m, V)

    def correct(self, target: Tensor) -> Tensor:
        """How many logits of `chunk` are highest at the target (c,)."""
        return self.chunk.argmax(dim=-1).eq(target[:, None]).sum()

    def loss(self, target: Tensor, options: _Options) -> Tensor:
        """Sums (loss, nll, kl) of `chunk`, which becomes its gradient (times `scale`)."""
        smoothing, alpha = options.smoothing, options.alpha
        if self.fused_step is not None:
            return self.fused_step(self.chunk, target, smoothing, alpha, self.scale, self.gradient)
        c, m, V = self.chunk.shape
        wide = self._widened()
        probs = mean = None
        if m > 1:
            assert self.probs is not None and self.mean is not None
            probs, mean = self.probs[: c * m * V].view(c, m, V), self.mean[: c * V].view(c, 1, V)
        sums = loss_and_gradient_(
            wide, target, smoothing, alpha, probs, mean, self.gradient, options.masked
        )
        self._keep_gradient(wide)
        return sums

    def distillation(
        self, target: Tensor, logits: Tensor, options: _Options, teacher: Teacher
    ) -> Tensor:
        """Sums (loss, nll, kl) of `chunk`, with the teacher's logits (c, V) for its tokens; it becomes
        its gradient (times `scale`)."""
        wide = self._widened()
        sums = distillation_and_gradient_(
            wide.squeeze(1), logits.to(wide.dtype), target, options.smoothing, teacher.share,
            teacher.temperature, self.gradient, options.masked,
        )  # fmt: skip
        self._keep_gradient(wide)
        return sums

    def _widened(self) -> Tensor:
        """The logits of `chunk` in the type of sums; `chunk` itself where that is its type."""
        wide = self.wide[: self.chunk.numel()].view(self.chunk.shape)
        if wide.dtype != self.chunk.dtype:
            wide.copy_(self.chunk)
        return wide

    def _keep_gradient(self, wide: Tensor) -> None:
        """What `wide` has become, back into `chunk`."""
        if self.gradient and wide.dtype != self.chunk.dtype:
            self.chunk.copy_(wide.mul_(self.scale) if self.scale != 1 else wide)

    def accumulate(self, rows: Tensor) -> None:
        """Multiply the gradient in `chunk` into those of weight and bias; `rows` become theirs."""
        flat = rows.view(-1, rows.shape[-1])
        gradient = self.chunk.view(len(flat), -1)
        if self.weight_grad is not None:
            if self.weight_grad.dtype == flat.dtype:
                self.weight_grad.addmm_(gradient.t(), flat)
            elif _adds_widened(flat.device.type, flat.dtype):
                _add_widened_(self.weight_grad, gradient.t(), flat)
            else:
                self.weight_grad += torch.mm(gradient.t(), flat)
        if self.bias_grad is not None:
            self.bias_grad += gradient.sum(dim=0, dtype=self.sum_dtype)
        if self.features_wanted:
            torch.mm(gradient, self.weight, out=flat)


def loss_and_gradient_(
    logits: Tensor,
    target: Tensor,
    smoothing: LabelSmoothing,
    alpha: float,
    probs: Tensor | None = None,
    mean: Tensor | None = None,
    gradient: bool = True,
    masked: bool = False,
) -> Tensor:
    """Loss of one chunk; with `gradient`, the logits are overwritten by their gradient.

    Args:
        logits: (c, m, V), contiguous, float32 or float64; overwritten in any case.
        target: (c,).
        smoothing: label smoothing.
        alpha: weight of the divergence.
        probs: (c, m, V), scratch; needed for m > 1.
        mean: (c, 1, V), scratch; needed for m > 1.
        gradient: compute the gradient.
        masked: tokens with a negative target do not count; their gradient is 0.

    Returns:
        (3,) float64: sums of loss, nll and kl over the chunk.
    """
    c, m, _ = logits.shape
    lprobs = torch.log_softmax(logits, dim=-1, out=logits)  # type: ignore[call-overload]
    index = target.view(c, 1, 1).expand(c, m, 1)
    ignored = index.lt(0) if masked else None
    if masked:
        index = index.clamp_min(0)
    nll = -_sum(lprobs.gather(-1, index), ignored)
    loss = smoothing.target * nll
    if smoothing.each:
        loss = loss - smoothing.each * _sum(lprobs.sum(dim=-1, keepdim=True), ignored)
    if m == 1:
        if gradient:
            lprobs.exp_()
            if smoothing.each:
                lprobs.sub_(smoothing.each)
            _add_at(lprobs, index, -smoothing.target)
            if ignored is not None:
                lprobs.masked_fill_(ignored, 0.0)
        return torch.stack([loss, nll, nll.new_zeros(())])
    assert probs is not None and mean is not None
    torch.exp(lprobs, out=probs)
    distance = lprobs.sub_(torch.mean(lprobs, dim=1, keepdim=True, out=mean))
    inner = _row_products(probs, distance)
    kl = _sum(inner, ignored) / (m - 1)
    if alpha:
        loss = loss + alpha * kl
    if gradient:
        h = alpha / (m - 1)
        torch.mean(probs, dim=1, keepdim=True, out=mean).mul_(h).add_(smoothing.each)
        torch.add(1 + h * (1 - inner), distance, alpha=h, out=distance)
        _add_at(distance.mul_(probs).sub_(mean), index, -smoothing.target)
        if ignored is not None:
            distance.masked_fill_(ignored, 0.0)
    return torch.stack([loss, nll, kl])


def _sum(rows: Tensor, ignored: Tensor | None) -> Tensor:
    """Sum of one number a row, (c, m, 1), in float64, without the ignored rows."""
    if ignored is not None:
        rows = rows.masked_fill(ignored, 0.0)
    return rows.sum(dtype=torch.float64)


def _add_at(gradient: Tensor, index: Tensor, value: float) -> None:
    """Add `value` to the entries (c, m, index) of `gradient` (c, m, V)."""
    gradient.scatter_add_(-1, index, gradient.new_full((), value).expand(index.shape))


def _row_products(a: Tensor, b: Tensor) -> Tensor:
    """Inner products over the last dimension, (c, m, V) each -> (c, m, 1), without a product tensor."""
    c, m, V = a.shape
    return torch.bmm(a.view(c * m, 1, V), b.view(c * m, V, 1)).view(c, m, 1)
