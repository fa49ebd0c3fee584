"""Heads of a model: how many each layer has, which are masked, and where they are.

Removed heads are part of the configuration (`heads_per_layer`), so a pruned checkpoint reloads from
what it says about itself.
"""

import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from torch import Tensor, nn

from admin_nmt.compat import load_checkpoint_file
from admin_nmt.documents import read_document
from admin_nmt.errors import UsageError, UserError
from admin_nmt.modules.heads import (
    KINDS,
    LayerHeads,
    Layout,
    format_layout,
    parse_heads,
    parse_layout,
    require_heads,
)
from admin_nmt.modules.multihead_attention import MultiheadAttention
from admin_nmt.modules.residual_attention import residual_kinds

#: What every file about heads that `admin-nmt` writes says of itself.
DOCUMENT, VERSION = "heads", 1
#: fairseq's default of `--restore-file`.
_DEFAULT_RESTORE_FILE = "checkpoint_last.pt"
#: Options about heads that a checkpoint carries.
_SETTINGS = ("heads_per_layer", "head_mask")
#: Kind -> stack and name of the attention in its layers.
PLACES = {
    "E": ("encoder", "self_attn"),
    "A": ("decoder", "encoder_attn"),
    "D": ("decoder", "self_attn"),
}
#: Kind -> its name in `--residual-attention`.
_RESIDUAL_NAMES = {"E": "encoder", "A": "cross", "D": "decoder"}


def full_layout(cfg: Any) -> dict[str, tuple[int, ...]]:
    """The layout that the sizes of `cfg` give when no head was removed."""
    layout = {
        kind: (getattr(cfg, stack).attention_heads,) * getattr(cfg, stack).layers
        for kind, (stack, _) in PLACES.items()
    }
    if cfg.no_cross_attention:
        del layout["A"]
    return layout


def heads_of(cfg: Any) -> dict[str, tuple[LayerHeads, ...]]:
    """Heads of each layer of the model that `cfg` describes.

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
                f"--{PLACES[kind][0]}-attention-heads is {full[kind][0]}"
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


def layout_of(cfg: Any) -> dict[str, tuple[int, ...]]:
    """How many heads each layer has, by kind; see `heads_of`."""
    return {
        kind: tuple(len(layer.values) for layer in layers) for kind, layers in heads_of(cfg).items()
    }


def is_residual(cfg: Any, kind: str) -> bool:
    """Whether attention of this kind carries its scores from layer to layer."""
    return _RESIDUAL_NAMES[kind] in residual_kinds(cfg.residual_attention)


def attentions(model: Any) -> Iterator[tuple[str, int, str, MultiheadAttention]]:
    """(kind, layer from 1, module name, module) of every attention of an `admin_transformer`."""
    for kind, (stack, name) in PLACES.items():
        # Iterating fairseq's `LayerDropModuleList` would skip layers at random.
        for index, layer in enumerate(nn.ModuleList.__iter__(getattr(model, stack).layers)):
            if getattr(layer, name, None) is not None:
                yield kind, index + 1, f"{stack}.layers.{index}.{name}", getattr(layer, name)


def state_layout(state_dict: dict[str, Tensor], cfg: Any) -> dict[str, tuple[int, ...]]:
    """Heads per layer of a state dict, seen from its shapes; sizes are those of `cfg`.

    Layers that the state dict lacks count as `cfg` has them: loading says what is missing.
    """

    def count(kind: str, index: int, expected: int, size: int) -> int:
        stack, name = PLACES[kind]
        output = f"{stack}.layers.{index}.{name}.out_proj"
        if f"{output}.bias" not in state_dict:
            return expected
        weight = state_dict.get(f"{output}.weight")
        return 0 if weight is None else weight.shape[1] // size

    layout = {}
    full = full_layout(cfg)
    for kind, counts in layout_of(cfg).items():
        size = getattr(cfg, PLACES[kind][0]).embed_dim // full[kind][0]
        layout[kind] = tuple(count(kind, i, n, size) for i, n in enumerate(counts))
    return layout


def _same_score_heads(state_dict: dict[str, Tensor], cfg: Any) -> bool:
    """Whether queries in a state dict have the sizes that `cfg` gives; none that are missing differ."""
    full = full_layout(cfg)
    for kind, layers in heads_of(cfg).items():
        stack, attention = PLACES[kind]
        size = getattr(cfg, stack).embed_dim // full[kind][0]
        for index, layer in enumerate(layers):
            name = f"{stack}.layers.{index}.{attention}"
            rows = layer.scores * size
            for part, expected in (
                ("qkv_proj", 2 * rows + len(layer.values) * size),
                ("q_proj", rows),
            ):
                bias = state_dict.get(f"{name}.{part}.bias")
                if bias is not None and len(bias) != expected:
                    return False
    return True


def require_same_heads(state_dict: dict[str, Tensor], cfg: Any) -> None:
    """Refuse a state dict whose head counts are not those of `cfg`.

    Raises:
        UserError: with the option that makes them equal.
    """
    ours, theirs = layout_of(cfg), state_layout(state_dict, cfg)
    if ours != theirs or not _same_score_heads(state_dict, cfg):
        # Which heads lost only their values cannot be seen from shapes.
        residual = any(is_residual(cfg, kind) for kind in theirs)
        value = "as in the checkpoint's settings" if residual else f"'{format_layout(theirs)}'"
        raise UserError(
            f"the checkpoint's heads per layer are {format_layout(theirs)}, the model's "
            f"{format_layout(ours)}; give --heads-per-layer {value}"
        )


def read_mask(given: str) -> str:
    """The list of heads that `--head-mask` means: a list such as `E:1:3,A:2:1`, or a file.

    The file is one that `admin-nmt prune --list` wrote, or has its key `removed`.

    Raises:
        UserError: the file cannot be read or names no heads.
        UsageError: neither a file nor a list of heads.
    """
    if not given:
        return ""
    try:
        return _listed(given)
    except UsageError:
        # A long list with a slip in it is no name that a system looks up: `Path.exists` would raise.
        if not os.path.exists(given):  # noqa: PTH110
            if Path(given).suffix or os.sep in given:
                raise UserError(f"--head-mask: file not found: {given}") from None
            raise
    removed = read_document(given, DOCUMENT, VERSION, "admin-nmt prune --list").get("removed")
    if not isinstance(removed, list):
        raise UserError(
            f"--head-mask {given} names no heads to mask; 'admin-nmt prune --list' writes such a file"
        )
    return _listed(",".join(map(str, removed))) if removed else ""


def _listed(heads: str) -> str:
    return ",".join(map(str, parse_heads(heads, "--head-mask")))


def apply_mask(model: Any, mask: str, layout: Layout) -> None:
    """Put gates of 0 on the heads of the list `mask`; the others get 1.

    Raises:
        UsageError: a head that the model does not have.
    """
    heads = parse_heads(mask, "--head-mask")
    require_heads(heads, layout, "--head-mask")
    for kind, layer, _, attention in attentions(model):
        masked = [head.head - 1 for head in heads if (head.kind, head.layer) == (kind, layer)]
        if masked:
            gate = torch.ones(attention.num_heads)
            gate[masked] = 0.0
            # A buffer, so that it follows the model's device and dtype; the configuration has it.
            del attention.head_gate
            attention.register_buffer("head_gate", gate, persistent=False)


def settle(args: Namespace | DictConfig | Any) -> None:
    """Complete the options about heads in place, so that checkpoints carry them.

    A mask file becomes the list in it. Training that goes on from a pruned or masked checkpoint
    (`--finetune-from-model`, `--restore-file`) takes over its heads and its mask.
    """
    values: dict[str, str] = {}
    if getattr(args, "head_mask", None):
        values["head_mask"] = read_mask(args.head_mask)
    # None only before training: a checkpoint says at least that nothing was removed.
    if getattr(args, "heads_per_layer", None) is None:
        for option in ("finetune_from_model", "restore_file"):
            path = getattr(args, option, None)
            # The default is no path: fairseq looks for that name in --save-dir.
            if path and path != _DEFAULT_RESTORE_FILE and Path(path).is_file():
                given = {name for name in _SETTINGS if getattr(args, name, None) is not None}
                theirs = _settings_of_checkpoint(path)
                values |= {name: theirs[name] for name in _SETTINGS if name not in given}
                break
    with open_dict(args) if isinstance(args, DictConfig) else ExitStack():
        for name, value in values.items():
            setattr(args, name, value)


def _settings_of_checkpoint(path: str) -> dict[str, str]:
    """The settings about heads of a checkpoint; empty where it has all of them, unmasked."""
    state = load_checkpoint_file(path)
    cfg = state.get("cfg")
    model = cfg.get("model") if isinstance(cfg, dict) else state.get("args")
    values = model if isinstance(model, dict) else vars(model) if model is not None else {}
    return {name: str(values.get(name) or "") for name in _SETTINGS}
