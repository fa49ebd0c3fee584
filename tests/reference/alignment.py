"""Guided alignment as a loop over links (Garg et al. 2019, section 3.2)."""

import math
from collections import Counter

from torch import Tensor


def objective(passes: list[Tensor], links: list[tuple[int, int]], smallest: float) -> Tensor:
    """Of attention (N, S) in float64; below `smallest` the logarithm is its tangent there."""
    of_target = Counter(target for _, target in links)
    loss = passes[0].new_zeros(())
    for weights in passes:
        for source, target in links:
            a = weights[target, source]
            log = a.log() if a > smallest else math.log(smallest) + (a - smallest) / smallest
            loss = loss - log / of_target[target]
    return loss
