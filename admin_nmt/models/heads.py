"""Heads of a model: how many each layer has, which are masked, and where they are.

Removed heads are part of the configuration (`heads_per_layer`), so a pruned checkpoint reloads from
what it says about itself.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from admin_nmt.errors import UsageError, UserError
from admin_nmt.modules.attention_kinds import ATTENTION_KINDS
from admin_nmt.modules.head_names import (
    KINDS,
    Head,
    LayerHeads,
    Layout,
    format_layout,
    parse_layout,
    require_heads,
)
from admin_nmt.modules.multihead_attention import MultiheadAttention
from admin_nmt.modules.residual_attention import residual_kinds
from admin_nmt.modules.walk import all_layers


class _Counts(NamedTuple):
    """How many heads of a layer have queries and keys, and how many have values."""

    scores: int
    values: int


def full_layout(cfg: Any) -> dict[str, tuple[int, ...]]:
    """The layout that the sizes of `cfg` give when no head was removed."""
    layout = {
        letter: (getattr(cfg, kind.stack).attention_heads,) * getattr(cfg, kind.stack).layers
        for letter, kind in ATTENTION_KINDS.items()
    }
    if cfg.no_cross_attention:
        del layout["A"]
    return layout


def read_heads_per_layer(cfg: Any) -> dict[str, tuple[LayerHeads, ...]]:
    """Heads of each layer of the model that `cfg` describes; `cfg.heads` keeps them.

    Raises:
        UsageError: `cfg.heads_per_layer` does not fit the other options.
    """
    full = full_layout(cfg)
    given = parse_layout(cfg.heads_per_layer or "")
    for kind, layers in given.items():
        if kind not in full:
            raise UsageError(f"--heads-per-layer: the model has no {KINDS[kind]}")
        if len(layers) != len(full[kind]):
            raise UsageError(
                f"--heads-per-layer gives {len(layers)} layers of {KINDS[kind]}; "
                f"the model has {len(full[kind])}"
            )
        largest = max(layer.scores for layer in layers)
        if largest > full[kind][0]:
            raise UsageError(
                f"--heads-per-layer gives a layer of {KINDS[kind]} {largest} heads; "
                f"--{ATTENTION_KINDS[kind].stack}-attention-heads is {full[kind][0]}"
            )
        _check_chain(kind, layers, is_residual(cfg, kind))
    return {kind: tuple(map(LayerHeads.whole, counts)) for kind, counts in full.items()} | given


def _check_chain(kind: str, layers: Sequence[LayerHeads], residual: bool) -> None:
    """Refuse heads without values in plain attention, and in residual attention heads whose scores
    have nothing to be added to."""
    counts = [layer.scores for layer in layers]
    if not residual and any(layer != LayerHeads.whole(layer.scores) for layer in layers):
        raise UsageError(
            f"--heads-per-layer: heads without values need --residual-attention in {KINDS[kind]}"
        )
    if residual and counts != sorted(counts, reverse=True):
        raise UsageError(
            f"--heads-per-layer: with --residual-attention no layer of {KINDS[kind]} can have more "
            f"heads than the layer below, whose scores it adds; got {','.join(map(str, counts))}"
        )


def is_residual(cfg: Any, kind: str) -> bool:
    """Whether attention of this kind carries its scores from layer to layer."""
    return ATTENTION_KINDS[kind].option in residual_kinds(cfg.residual_attention)


def aligned_heads(cfg: Any) -> set[Head]:
    """Heads that pruning must leave because of `--alignment-layer`: the first heads of that layer, which
    are trained to align.

    With residual attention the heads of all layers are ordered together, those that last longest first.
    So that these stay the first, they also stay in the last layer that has them.
    """
    if cfg.alignment_layer is None:
        return set()
    layers = cfg.heads["A"]
    places = layers[cfg.alignment_layer].values[: cfg.alignment_heads]
    needed = {(cfg.alignment_layer, place) for place in places}
    if is_residual(cfg, "A"):
        needed |= {
            (max(layer for layer, heads in enumerate(layers) if place in heads.values), place)
            for place in places
        }
    return {Head("A", layer + 1, layers[layer].values.index(place) + 1) for layer, place in needed}


def attentions(model: Any) -> Iterator[tuple[str, int, str, MultiheadAttention]]:
    """(kind, layer from 1, module name, module) of every attention of an `admin_transformer`."""
    for letter, kind in ATTENTION_KINDS.items():
        for index, layer in enumerate(all_layers(getattr(model, kind.stack).layers)):
            attention = getattr(layer, kind.attribute, None)
            if attention is not None:
                yield letter, index + 1, attention_name(letter, index), attention


def attention_name(letter: str, index: int) -> str:
    """Module name of an attention of the layer `index`, counted from 0."""
    kind = ATTENTION_KINDS[letter]
    return f"{kind.stack}.layers.{index}.{kind.attribute}"


def _state_heads(state_dict: dict[str, Tensor], cfg: Any) -> dict[str, tuple[_Counts, ...]]:
    """Heads per layer of a state dict, seen from its shapes; sizes are those of `cfg`.

    Layers that the state dict lacks count as `cfg` has them: loading says what is missing.
    """

    def count(kind: str, index: int, expected: LayerHeads, size: int) -> _Counts:
        name = attention_name(kind, index)
        scores, values = expected.scores, len(expected.values)
        if f"{name}.out_proj.bias" in state_dict:
            output = state_dict.get(f"{name}.out_proj.weight")
            values = 0 if output is None else output.shape[1] // size
        if f"{name}.q_proj.bias" in state_dict:
            scores = len(state_dict[f"{name}.q_proj.bias"]) // size
        elif f"{name}.qkv_proj.bias" in state_dict:
            scores = (len(state_dict[f"{name}.qkv_proj.bias"]) // size - values) // 2
        return _Counts(scores, values)

    full = full_layout(cfg)
    return {
        kind: tuple(
            count(
                kind, i, layer, getattr(cfg, ATTENTION_KINDS[kind].stack).embed_dim // full[kind][0]
            )
            for i, layer in enumerate(layers)
        )
        for kind, layers in cfg.heads.items()
    }


def require_same_heads(state_dict: dict[str, Tensor], cfg: Any) -> None:
    """Refuse a state dict whose head counts are not those of `cfg`.

    Raises:
        UserError: with the option that makes them equal.
    """
    ours = {
        kind: tuple(_Counts(layer.scores, len(layer.values)) for layer in layers)
        for kind, layers in cfg.heads.items()
    }
    theirs = _state_heads(state_dict, cfg)
    if ours != theirs:
        named, wanted = (
            format_layout({kind: [n.values for n in layers] for kind, layers in heads.items()})
            for heads in (theirs, ours)
        )
        # Which heads lost only their values cannot be seen from shapes.
        residual = any(is_residual(cfg, kind) for kind in theirs)
        value = "as in the checkpoint's settings" if residual else f"'{named}'"
        raise UserError(
            f"the checkpoint's heads per layer are {named}, the model's {wanted}; give "
            f"--heads-per-layer {value}"
        )


def apply_mask(model: Any, masked: Collection[Head], layout: Layout) -> None:
    """Put gates of 0 on the heads `masked`; the others get 1.

    Raises:
        UsageError: a head that the model does not have.
    """
    require_heads(masked, layout, "--head-mask")
    for kind, layer, _, attention in attentions(model):
        places = [head.head - 1 for head in masked if (head.kind, head.layer) == (kind, layer)]
        if places:
            gate = torch.ones(attention.num_heads)
            gate[places] = 0.0
            # A buffer, so that it follows the model's device and dtype; the configuration has it.
            del attention.head_gate
            attention.register_buffer("head_gate", gate, persistent=False)
