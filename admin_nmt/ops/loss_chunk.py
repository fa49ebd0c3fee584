"""One chunk of `admin_nmt.ops.linear_loss`: its logits, its loss, the gradients it adds.

With p_i the softmax of pass i, lp_i its logarithm, e_y the one-hot target, m passes, `smoothing` (see
`admin_nmt.ops.label_smoothing`) and R-Drop's weight alpha, the gradient of the logits of pass i is

    p_i - smoothing.target * e_y - smoothing.each
    + alpha / (m - 1) * (p_i * (d_i - <p_i, d_i> + 1) - mean_j p_j),   d_i = lp_i - mean_j lp_j

whose second line for m = 2 is the gradient of alpha * (KL(p_1||p_2) + KL(p_2||p_1)) / 2
(R-Drop, arXiv 2106.14448, eq. 2). It takes the place of the logits (`loss_and_gradient_`; on GPUs one
kernel, `admin_nmt.ops.linear_loss_triton`). The gradient with a teacher is in
`admin_nmt.ops.distillation`.

Shape letters: see `admin_nmt.ops`; c tokens a chunk, m passes.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from admin_nmt.ops.distillation import Teacher, distillation_and_gradient_
from admin_nmt.ops.label_smoothing import LabelSmoothing

logger = logging.getLogger(__name__)

#: float16 holds no number below 6e-8: gradients of logits are scaled up before they are rounded.
_FLOAT16_SCALE = 16.0


class LossOptions(NamedTuple):
    """What the loss needs besides the model's tensors.

    Attributes:
        smoothing: label smoothing.
        alpha: weight of the divergence between the passes.
        teacher: of word-level distillation; there is one pass then.
        chunk_tokens: tokens projected at a time.
        count_correct: also count the tokens whose most likely type is the true one.
        masked: tokens with a negative target do not count.
        gradients: compute gradients, of the inputs that want them.
    """

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


class Workspace:
    """Buffers for one chunk, allocated once, and the gradients that grow chunk by chunk.

    Args:
        features: (m, R, D), of all tokens.
        weight: (V, D).
        bias: (V,) or None.
        tokens: of the largest chunk.
        wanted: whether the gradients of features, weight and bias are.
        options: of the loss.
    """

    def __init__(
        self,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: int,
        wanted: Sequence[bool],
        options: LossOptions,
    ) -> None:
        self.options = options
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
        if options.teacher is None and features.is_cuda and features.dtype != torch.float64:
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

    def loss(self, target: Tensor) -> Tensor:
        """Sums (loss, nll, kl) of `chunk`, which becomes its gradient (times `scale`)."""
        smoothing, alpha = self.options.smoothing, self.options.alpha
        if self.fused_step is not None:
            return self.fused_step(self.chunk, target, smoothing, alpha, self.scale, self.gradient)
        c, m, V = self.chunk.shape
        wide = self._widened()
        probs = mean = None
        if m > 1:
            assert self.probs is not None and self.mean is not None
            probs, mean = self.probs[: c * m * V].view(c, m, V), self.mean[: c * V].view(c, 1, V)
        sums = loss_and_gradient_(
            wide, target, smoothing, alpha, probs, mean, self.gradient, self.options.masked
        )
        self._keep_gradient(wide)
        return sums

    def distillation(self, target: Tensor, logits: Tensor) -> Tensor:
        """Sums (loss, nll, kl) of `chunk`, with the teacher's logits (c, V) for its tokens; it becomes
        its gradient (times `scale`)."""
        wide, options, teacher = self._widened(), self.options, self.options.teacher
        assert teacher is not None
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
