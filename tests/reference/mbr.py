"""Minimum Bayes risk as it is defined: a score of sacreBLEU for each pair of hypotheses."""

from collections.abc import Sequence
from typing import Any


def expected_utilities(
    hypotheses: Sequence[str], metric: Any, weights: Sequence[float]
) -> list[float]:
    """sum_j w_j u(h_i, h_j) / sum_j w_j for every i; `metric` is one of sacreBLEU's."""
    return [
        sum(
            weight * metric.sentence_score(taken, [right]).score
            for right, weight in zip(hypotheses, weights, strict=True)
        )
        / sum(weights)
        for taken in hypotheses
    ]
