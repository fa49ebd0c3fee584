"""Word-level knowledge distillation: the student matches the teacher's distribution at every token.

For one token with the student's distribution p and the teacher's q over the vocabulary,

    loss = (1 - share) * LS(y, p) + share * T^2 * KL(q_T || p_T)

with LS the label-smoothed likelihood of the reference (`label_smoothing`), and q_T, p_T the softmax of
the logits divided by the temperature T (Hinton et al. 2015, arXiv 1503.02531, section 2, whose T^2
keeps the gradient's size; Kim & Rush 2016, arXiv 1606.07947, section 3.1, with T = 1). Its gradient
by the student's logits is

    (1 - share) * (p - smoothing.target * e_y - smoothing.each) + share * T * (p_T - q_T)

`distillation_loss` computes it directly; `distillation_and_gradient_` is the step for one chunk of tokens
in `admin_nmt.ops.linear_loss`, which never holds all logits of either model.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from admin_nmt.ops.label_smoothing import LabelSmoothing
from admin_nmt.ops.rdrop import LossSums


class Teacher(NamedTuple):
    """What a teacher says of a batch, before its output projection.

    Attributes:
        features: (..., D_t), of its last decoder layer; for every token of the student's batch.
        weight: (V, D_t), of its output projection.
        bias: (V,) or None.
        share: of the loss that is distillation, from 0 to 1.
        temperature: T > 0.
    """

    features: Tensor
    weight: Tensor
    bias: Tensor | None
    share: float
    temperature: float = 1.0

    def logits(self, features: Tensor) -> Tensor:
        """(c, V) of features (c, D_t), multiplied in the type of the teacher's weight."""
        return torch.nn.functional.linear(features.to(self.weight.dtype), self.weight, self.bias)


def distillation_loss(
    lprobs: Tensor,
    teacher_lprobs: Tensor,
    target: Tensor,
    smoothing: LabelSmoothing,
    share: float,
    temperature: float = 1.0,
    ignore_index: int | None = None,
    reduce: bool = True,
    count_correct: bool = False,
) -> LossSums:
    """The loss of N tokens; `kl` of the result is KL(q_T || p_T).

    Args:
        lprobs: (N, V), the student's log-probabilities.
        teacher_lprobs: (N, V), the teacher's.
        target: (N,), indices of the true types.
        smoothing: label smoothing of the likelihood term.
        share: of distillation in the loss.
        temperature: T.
        ignore_index: tokens with this target do not count (padding).
        reduce: sum over tokens; else every figure has shape (N,), 0 at ignored tokens.
        count_correct: also count the tokens whose most likely type is the true one.

    Examples:
        >>> import torch
        >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
        >>> found = distillation_loss(p, q, torch.tensor([1]), LabelSmoothing.of(0.0, 2), share=1.0)
        >>> round(found.loss.item(), 4)  # 0.25 log(0.25 / 0.5) + 0.75 log(0.75 / 0.5)
        0.1308
    """
    hard, nll = smoothing.loss(lprobs, target)
    # A softmax does not see what is added to all logits: log-probabilities stand for logits.
    soft, taught = (torch.log_softmax(x / temperature, dim=-1) for x in (lprobs, teacher_lprobs))
    probs = taught.exp()
    # A type that the teacher rules out altogether adds 0 * log 0 = 0, not NaN.
    kl = (probs * (taught - soft).masked_fill(probs.eq(0), 0.0)).sum(dim=-1)
    loss = (1 - share) * hard + share * temperature**2 * kl
    parts = [loss, nll.detach(), kl.detach()]
    if count_correct:
        parts.append(lprobs.argmax(dim=-1).eq(target))
    if ignore_index is not None:
        ignored = target.eq(ignore_index)
        parts = [part.masked_fill(ignored, 0) for part in parts]
    return LossSums(*(part.sum() if reduce else part for part in parts))


def distillation_and_gradient_(
    logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    smoothing: LabelSmoothing,
    share: float,
    temperature: float,
    gradient: bool = True,
    masked: bool = False,
) -> Tensor:
    """Loss of one chunk; with `gradient`, the student's logits are overwritten by their gradient.

    Args:
        logits: (c, V), float32 or float64; overwritten in any case.
        teacher_logits: (c, V), of the same type; overwritten.
        target: (c,).
        smoothing: label smoothing of the likelihood term.
        share: of distillation in the loss.
        temperature: T.
        gradient: compute the gradient.
        masked: tokens with a negative target do not count; their gradient is 0.

    Returns:
        (3,) float64: sums of loss, nll and KL(q_T || p_T) over the chunk.
    """
    index = target.view(-1, 1)
    ignored = index.lt(0)
    if masked:
        index = index.clamp_min(0)
    if temperature != 1:
        soft = torch.log_softmax(logits / temperature, dim=-1)
        teacher_logits.div_(temperature)
    lprobs = torch.log_softmax(logits, dim=-1, out=logits)  # type: ignore[call-overload]
    if temperature == 1:
        soft = lprobs
    taught = torch.log_softmax(teacher_logits, dim=-1, out=teacher_logits)  # type: ignore[call-overload]
    probs = taught.exp()
    kl = (probs * (taught - soft).masked_fill_(probs.eq(0), 0.0)).sum(dim=-1, keepdim=True)
    nll = -lprobs.gather(-1, index)
    hard = smoothing.target * nll
    if smoothing.each:
        hard = hard - smoothing.each * lprobs.sum(dim=-1, keepdim=True)
    loss = (1 - share) * hard + share * temperature**2 * kl
    rows = torch.stack([loss, nll, kl])  # (3, c, 1)
    if masked:
        rows = rows.masked_fill(ignored, 0.0)
    if gradient:
        difference = (soft.exp() - probs).mul_(share * temperature)
        lprobs.exp_().sub_(smoothing.each)
        lprobs.scatter_add_(-1, index, lprobs.new_full((), -smoothing.target).expand(index.shape))
        lprobs.mul_(1 - share).add_(difference)
        if masked:
            lprobs.masked_fill_(ignored, 0.0)
    return rows.sum(dim=(1, 2), dtype=torch.float64)
