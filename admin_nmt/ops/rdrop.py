"""R-Drop's objective (arXiv 2106.14448, eq. 4), directly from log-probabilities.

The paper runs m = 2 passes; its appendix extends the divergence to m passes by averaging over all
ordered pairs. With p_i the distribution of pass i:

    KL = 1 / (m (m - 1)) * sum over i != j of KL(p_i || p_j)

which for m = 2 is the paper's (KL(p_1 || p_2) + KL(p_2 || p_1)) / 2. The same loss without ever
holding all logits is in `admin_nmt.ops.linear_loss`.
"""

from dataclasses import dataclass

from torch import Tensor

from admin_nmt.ops.label_smoothing import LabelSmoothing


@dataclass
class LossSums:
    """Sums over tokens, each a tensor of no dimensions, or of shape (N,) where nothing is summed.

    Attributes:
        loss: what is optimised: of R-Drop the smoothed losses of all passes plus alpha times `kl`, of
            distillation `kl` weighed against the smoothed loss.
        nll: negative log-likelihood of all passes, without label smoothing.
        kl: of R-Drop the symmetric divergence between the passes, 0 for one pass; of distillation
            KL(q_T || p_T), of the student from the teacher (`ops.distillation`).
        correct: tokens whose most likely type is the true one, over all passes; None if not asked.
    """

    loss: Tensor
    nll: Tensor
    kl: Tensor
    correct: Tensor | None = None


def symmetric_kl(lprobs: Tensor) -> Tensor:
    """Mean over ordered pairs of passes of KL(p_i || p_j), per token.

    Args:
        lprobs: (m, ..., V), log-probabilities of m >= 2 passes.

    Returns:
        (...).

    Examples:
        >>> import torch
        >>> symmetric_kl(torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log())
        tensor(0.1373)
    """
    m = lprobs.shape[0]
    # sum over j of (lp_i - lp_j) is m * (lp_i - mean lp): no pair needs a tensor of its own.
    distance = lprobs - lprobs.mean(dim=0, keepdim=True)
    return (lprobs.exp() * distance).sum(dim=-1).sum(dim=0) / (m - 1)


def rdrop_loss(
    lprobs: Tensor,
    target: Tensor,
    smoothing: LabelSmoothing,
    alpha: float,
    ignore_index: int | None = None,
    reduce: bool = True,
    count_correct: bool = False,
) -> LossSums:
    """The objective of m passes over N tokens.

    Args:
        lprobs: (m, N, V), log-probabilities.
        target: (N,), indices of the true types.
        smoothing: label smoothing of the likelihood terms.
        alpha: weight of the divergence.
        ignore_index: tokens with this target do not count (padding).
        reduce: sum over tokens; else every figure has shape (N,), 0 at ignored tokens.
        count_correct: also count the tokens whose most likely type is the true one.
    """
    ignored = target.new_zeros(()) if ignore_index is None else target.eq(ignore_index)
    expanded = target.expand(lprobs.shape[:-1])
    loss, nll = (part.sum(dim=0) for part in smoothing.loss(lprobs, expanded))
    kl = symmetric_kl(lprobs) if lprobs.shape[0] > 1 else nll.new_zeros(nll.shape)
    if alpha:
        loss = loss + alpha * kl
    parts = [loss, nll.detach(), kl.detach()]
    if count_correct:
        parts.append(lprobs.argmax(dim=-1).eq(expanded).sum(dim=0))
    parts = [part.masked_fill(ignored.bool(), 0) for part in parts]
    return LossSums(*(part.sum() if reduce else part for part in parts))
