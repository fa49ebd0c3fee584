"""Attention of a model on held-out text: entropy of each head, divergence between neighbouring layers.

Also the share of the encoder output that differs by position (`analysis.collapse`).

Each query token gives one number per head (entropy) and one per head and pair of adjacent layers
(divergence of the same head index in layer l - 1 and l, as in RealFormer's analysis, arXiv 2012.11747,
section 4.3). The number of tokens is limited, whatever the size of the data, and attention weights are
kept only until the layer above has been compared with them.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from admin_nmt.analysis.collapse import PositionShare
from admin_nmt.analysis.distributions import entropy, jensen_shannon
from admin_nmt.errors import UserError, require_at_least_one
from admin_nmt.evaluation.batches import random_batches
from admin_nmt.models.heads import attentions
from admin_nmt.modules.attention_kinds import by_queries
from admin_nmt.modules.head_names import KINDS
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

#: What is measured, and what it is called in plots.
QUANTITIES = {
    "entropy": "attention entropy (bits)",
    "divergence": "divergence from the layer below",
}


@dataclass
class AttentionStatistics:
    """What the heads of one model did.

    Attributes:
        values: quantity -> (kind, layer from 1) -> (H, N), one number per head and query token.
            Layers without heads have no entry; divergence has none for layers without a layer of
            heads right below, and NaN for heads that have no counterpart there.
        num_tokens: kind -> N.
        position_share: share of the encoder output that differs by position; near 0 the decoder
            has nothing to attend to.
    """

    values: dict[str, dict[tuple[str, int], Tensor]]
    num_tokens: dict[str, int]
    position_share: float = math.nan

    def medians(self, quantity: str) -> dict[str, list[list[float]]]:
        """kind -> layer -> head -> median over tokens; NaN where nothing was measured, such as the
        first layer of divergences."""
        found: dict[str, list[list[float]]] = {}
        for (kind, layer), heads in self.values["entropy"].items():
            layers = found.setdefault(kind, [])
            layers += [[] for _ in range(layer - 1 - len(layers))]  # layers that have no heads
            layers.append([math.nan] * len(heads))
        for (kind, layer), heads in self.values[quantity].items():
            found[kind][layer - 1] = heads.median(dim=1).values.tolist()
        return found


class _Layer(NamedTuple):
    """Weights (H, N, S) of the heads at `places` in layer number `layer`."""

    layer: int
    places: Sequence[int]
    weights: Tensor

    def divergence_from(self, below: "_Layer") -> Tensor:
        """(H, N): of each head from the one at the same place in `below`, NaN if there is none."""
        found = self.weights.new_full(self.weights.shape[:2], math.nan)
        for head, place in enumerate(self.places):
            if place in below.places:
                other = below.weights[below.places.index(place)]
                found[head] = jensen_shannon(self.weights[head], other)
        return found


@dataclass
class _Watcher:
    """Receives the weights of one attention after the other and keeps what they show."""

    limit: int
    visible: dict[str, Tensor] = field(default_factory=dict)
    below: dict[str, _Layer] = field(default_factory=dict)
    values: dict[str, dict[tuple[str, int], list[Tensor]]] = field(
        default_factory=lambda: {name: {} for name in QUANTITIES}
    )
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def start(self, visible: dict[str, Tensor]) -> None:
        """A new batch; `visible` (B, T) by kind is false at padded queries."""
        self.visible, self.below = visible, {}

    def record(self, kind: str, layer: int, places: Sequence[int], weights: Tensor) -> None:
        """Weights (H, B, T, S) of one layer, in forward order.

        Args:
            kind: of attention.
            layer: number, from 1.
            places: of the H heads among those of the layers above and below.
            weights: of all queries; those of padded ones are ignored.
        """
        room = self.limit - self.seen[kind]
        weights = weights[:, self.visible[kind]][:, : max(room, 0)].float()  # (H, N, S)
        current, below = _Layer(layer, places, weights), self.below.get(kind)
        self._keep("entropy", kind, layer, entropy(weights))
        if below is not None and below.layer == layer - 1:
            self._keep("divergence", kind, layer, current.divergence_from(below))
        self.below[kind] = current

    def finish(self) -> None:
        """The batch has ended."""
        for kind, mask in self.visible.items():
            self.seen[kind] = min(self.limit, self.seen[kind] + int(mask.sum()))

    def full(self) -> bool:
        """Whether no kind needs another token."""
        return all(self.seen[kind] >= self.limit for kind in self.visible)

    def _keep(self, quantity: str, kind: str, layer: int, numbers: Tensor) -> None:
        self.values[quantity].setdefault((kind, layer), []).append(numbers.cpu())


@contextmanager
def _watched(model: Any, watcher: _Watcher) -> Iterator[None]:
    """Let `watcher` see the weights of every attention of `model`."""
    handles = []

    def request_weights(
        module: Any, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "need_weights": True, "need_head_weights": True}

    for kind, layer, _, attention in attentions(model):
        if attention.num_heads == 0:
            continue

        def record_weights(
            module: Any, args: Any, output: tuple, kind: str = kind, layer: int = layer
        ) -> tuple:
            # In residual attention a head's place is that of the scores it adds to.
            places = getattr(module, "value_heads", None) or range(module.num_heads)
            watcher.record(kind, layer, places, output[1])
            return (output[0], output[1].mean(dim=0), *output[2:])

        handles.append(attention.register_forward_pre_hook(request_weights, with_kwargs=True))
        handles.append(attention.register_forward_hook(record_weights))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def watch_attention(
    model: Any,
    task: Any,
    subset: str,
    num_tokens: int = 8192,
    max_tokens: int = 1024,
    seed: int = 1,
) -> AttentionStatistics:
    """Statistics over `num_tokens` query tokens of each kind, or all there are.

    Args:
        model: an `AdminTransformerModel` in evaluation mode.
        task: fairseq's translation task over the data.
        subset: of the data; sentences are drawn at random.
        num_tokens: N; for encoder self-attention these are source tokens, else target tokens.
        max_tokens: of one batch.
        seed: of the draw.

    Raises:
        UsageError: a number that makes no sense.
        UserError: the subset is empty, or weights are not finite.
    """
    require_at_least_one("--num-tokens", num_tokens)
    require_at_least_one("--max-tokens", max_tokens)
    watcher, share = _Watcher(num_tokens), PositionShare()
    with (
        _watched(model, watcher),
        share.watching(model.encoder),
        progress(logger, "watching", "tokens", total=num_tokens) as bar,
    ):
        for sample in random_batches(task, model, subset, max_tokens, seed):
            net_input = sample["net_input"]
            source = net_input["src_tokens"].ne(model.encoder.padding_idx)
            target = net_input["prev_output_tokens"].ne(model.decoder.padding_idx)
            watcher.start(by_queries(source, target))
            model(**net_input, features_only=True)
            watcher.finish()
            bar.update(min(watcher.seen.values()) - bar.n)
            if watcher.full():
                break
    values = {
        quantity: {place: torch.cat(parts, dim=1) for place, parts in sorted_places(found)}
        for quantity, found in watcher.values.items()
    }
    if not values["entropy"]:
        raise UserError(
            f"subset {subset} has no sentence to look at, or the model no attention head"
        )
    if not all(numbers.isfinite().all() for numbers in values["entropy"].values()):
        raise UserError("attention weights are not finite: the model has diverged")
    return AttentionStatistics(values, watcher.seen, share.value)


def sorted_places(found: dict[tuple[str, int], Any]) -> list[tuple[tuple[str, int], Any]]:
    """Entries by kind in the usual order, then by layer."""
    order = list(KINDS)
    return sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
