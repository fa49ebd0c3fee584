"""Guided alignment: attention pulled towards known word alignments (Garg et al. 2019, arXiv 1909.02074).

With A (T, S) the attention of a head, or the average of several, and links (s, t) between source and target
places, section 3.2 asks for a low

    loss = -sum over t of 1/|links of t| * sum over links (s, t) of log A[t, s]

Places without links do not count.
"""

import math

import torch
from torch import Tensor

#: Below these the logarithm goes on as its tangent: its slope 1/A would be more than the type can hold,
#: and a weight of 0 would have none.
_SMALLEST = {torch.float16: 2.0**-11}
_SMALLEST_OTHERWISE = 1e-8


def guided_alignment_loss(weights: Tensor, links: Tensor, link_weights: Tensor) -> Tensor:
    """The loss, summed over links, in float32 at least.

    Args:
        weights: (..., N, S), attention of N target places over S source places; what comes before
            (passes of the same batch) is summed.
        links: (L, 2), pairs (source place, target place) of integers.
        link_weights: (L,), 1 over the number of links of the target place.

    Returns:
        a scalar; 0 if there is no link.

    Examples:
        >>> weights = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
        >>> loss = guided_alignment_loss(weights, torch.tensor([[1, 1]]), torch.ones(1))
        >>> round(loss.item(), 4)  # -log 0.75
        0.2877
    """
    chosen = weights[..., links[:, 1], links[:, 0]]
    smallest = _SMALLEST.get(chosen.dtype, _SMALLEST_OTHERWISE)
    chosen = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
    tangent = math.log(smallest) - 1 + chosen / smallest
    logs = torch.where(chosen > smallest, chosen.clamp_min(smallest).log(), tangent)
    return -(logs * link_weights.to(logs.dtype)).sum()
