"""The importance score of heads (arXiv 1905.10650, equation 2), as arithmetic on tensors.

A gate xi_h multiplies the output of head h. With the loss L summed over target tokens,

    I_h = E_x | dL(x) / dxi_h | = E_x | Att_h(x)^T dL(x) / dAtt_h(x) |.

The absolute value is taken per example x, which is a token or a sentence:

- token: every query position has a gate of its own. The sum of absolute values over positions is
  divided by the number of positions that are not padding (the authors' translation code).
- sentence: a gate serves the whole sentence, so positions are added before the absolute value, and
  the sum over sentences is divided by their number (the formula as the paper writes it).

Letters: B sentences, H heads, T positions of the query.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from torch import Tensor

from admin_nmt.modules.head_names import KINDS, Head

TOKEN, SENTENCE = GRANULARITIES = ("token", "sentence")

#: Kind -> layer -> head -> score.
Scores = Mapping[str, Sequence[Sequence[float]]]


def summed_importance(gradient: Tensor, visible: Tensor, granularity: str) -> Tensor:
    """Sum over examples of |dL/dxi|.

    Args:
        gradient: (B, H, T), of the loss by a gate at every position.
        visible: (B, T), false at padding, which does not count.
        granularity: `token` or `sentence`.

    Returns:
        (H,), in float64: sums run over millions of tokens.
    """
    gradient = gradient.double().masked_fill(~visible[:, None, :], 0.0)
    if granularity == SENTENCE:
        return gradient.sum(dim=2).abs().sum(dim=0)
    return gradient.abs().sum(dim=(0, 2))


def num_examples(visible: Tensor, granularity: str) -> int:
    """How many examples a batch with the mask `visible` (B, T) holds."""
    return visible.shape[0] if granularity == SENTENCE else int(visible.sum())


def normalize_by_layer(scores: Scores) -> dict[str, list[list[float]]]:
    """Divide every layer of every kind by its own l2 norm (section 4.1 of the paper).

    Layers whose scores are all 0 stay so. Kinds may have any number of layers.

    Examples:
        >>> normalize_by_layer({"E": [[3.0, 4.0], [0.0, 0.0]]})
        {'E': [[0.6, 0.8], [0.0, 0.0]]}
    """

    def normalized(layer: Sequence[float]) -> list[float]:
        norm = math.hypot(*layer)
        return [score / norm if norm else 0.0 for score in layer]

    return {kind: [normalized(layer) for layer in layers] for kind, layers in scores.items()}


def normalize_by_kind(scores: Scores) -> dict[str, list[list[float]]]:
    """Divide all scores of a kind by their common l2 norm: layers of a kind keep their proportions.

    Examples:
        >>> normalize_by_kind({"E": [[3.0], [4.0, 0.0]], "D": [[0.0]]})
        {'E': [[0.6], [0.8, 0.0]], 'D': [[0.0]]}
    """
    norms = {kind: math.hypot(*chain.from_iterable(layers)) for kind, layers in scores.items()}
    return {
        kind: [[score / norms[kind] if norms[kind] else 0.0 for score in layer] for layer in layers]
        for kind, layers in scores.items()
    }


#: `--normalize` -> what it does to scores before heads of all layers and kinds are ranked together.
NORMALIZATIONS: dict[str, Callable[[Scores], Scores]] = {
    "layer": normalize_by_layer,
    "kind": normalize_by_kind,
    "none": lambda scores: scores,
}


def ranking(scores: Scores) -> list[Head]:
    """All heads, the least important first; equal scores in the order of their names.

    Examples:
        >>> [str(head) for head in ranking({"E": [[0.6, 0.8]], "D": [[1.0, 0.0]]})]
        ['D:1:2', 'E:1:1', 'E:1:2', 'D:1:1']
    """
    scored = [
        (score, order, Head(kind, layer, head))
        for order, kind in enumerate(KINDS)
        for layer, heads in enumerate(scores.get(kind, ()), 1)
        for head, score in enumerate(heads, 1)
    ]
    return [head for _, _, head in sorted(scored)]
