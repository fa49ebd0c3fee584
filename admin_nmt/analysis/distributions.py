"""Entropy and divergence of attention distributions (RealFormer, arXiv 2012.11747, section 4.3).

All in bits, so that the Jensen-Shannon divergence lies between 0 and 1. Shape letters: see
`admin_nmt.ops`.
"""

import torch
from torch import Tensor


def entropy(weights: Tensor) -> Tensor:
    """Entropy of each distribution.

    Args:
        weights: (..., S), non-negative, summing to 1 over the keys.

    Returns:
        (...), bits; 0 where a query looks at one key only.
    """
    return -torch.special.xlogy(weights, weights).sum(dim=-1) / torch.log(weights.new_tensor(2.0))


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two distributions over the same keys.

    Args:
        p: (..., S).
        q: (..., S).

    Returns:
        (...), bits: 0 for equal distributions, 1 for those that share no key.
    """
    divergence = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    return divergence.clamp(0, 1)  # rounding
