"""Removing heads from a checkpoint: smaller matrices, same outputs as with the heads masked.

The output projection W reads the concatenated heads, so attention is a sum over heads,

    Att(x) = b + sum_h W_h Att_h(x),

and a masked head contributes nothing to the sum. Removing it deletes its rows of the q, k and v projections
(with their biases) and its columns W_h; b stays. A layer without heads returns b.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.checkpoints.settings import set_values
from admin_nmt.checkpoints.tensors import cast
from admin_nmt.errors import UsageError
from admin_nmt.models.heads import aligned_heads, attention_name, is_residual
from admin_nmt.models.loading import build_model
from admin_nmt.models.settings import model_settings
from admin_nmt.modules.head_names import Head, LayerHeads, format_layout, require_heads
from admin_nmt.pruning.loading import LoadedModel, is_stock, plain_options


def keep_heads(
    state_dict: dict[str, Tensor],
    name: str,
    before: LayerHeads,
    scores: Sequence[int],
    values: Sequence[int],
) -> None:
    """Keep some heads of the attention module `name`, in place.

    Args:
        state_dict: its matrices become copies, so that nothing of the old ones stays in memory.
        name: of the module.
        before: the heads it has.
        scores: which of its heads keep queries and keys, in their new order.
        values: which of `before.values` (by position there) keep values, in their new order.
    """
    parts = {"q": (before.scores, scores), "k": (before.scores, scores)}
    parts["v"] = (len(before.values), values)
    for projection in ("qkv_proj", "q_proj", "kv_proj"):
        for suffix in ("weight", "bias"):
            key = f"{name}.{projection}.{suffix}"
            if key in state_dict:
                chosen = [parts[part] for part in projection.removesuffix("_proj")]
                state_dict[key] = _rows_of_heads(state_dict[key], chosen)
                if not scores:
                    del state_dict[key]
    key = f"{name}.out_proj.weight"
    if key in state_dict and not values:
        del state_dict[key]
    elif key in state_dict:
        columns = state_dict[key]
        heads = columns.view(columns.shape[0], len(before.values), -1)
        state_dict[key] = heads[:, list(values)].reshape(columns.shape[0], -1).clone()


def _rows_of_heads(rows: Tensor, parts: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
    """Rows of some heads of a fused projection; `parts`: (heads there are, those to keep)."""
    size = len(rows) // sum(count for count, _ in parts)
    pieces = rows.split([count * size for count, _ in parts])
    return torch.cat(
        [
            piece.unflatten(0, (count, size))[list(kept)].flatten(0, 1)
            for piece, (count, kept) in zip(pieces, parts, strict=True)
            if count
        ]
    )


def keep_chain(
    layers: Sequence[LayerHeads], removed: Collection[tuple[int, int]]
) -> list[tuple[list[int], list[int], LayerHeads]]:
    """What residual attention keeps when heads are removed.

    A head that goes in layer l keeps its queries and keys there if it stays in a layer above, whose
    scores are a sum over all layers below. Heads are put in a new order, the same in all layers:
    those that last longest first, so that every layer has the first heads of the layer below.

    Args:
        layers: heads of each layer.
        removed: (layer, head) from 1, by name.

    Returns:
        for each layer: old places of the heads with queries and keys, in their new order; positions
        in `values` of those with values, in their new order; and the heads of the layer then.
    """
    stay = [
        {value for head, value in enumerate(heads.values, 1) if (layer, head) not in removed}
        for layer, heads in enumerate(layers, 1)
    ]
    lasts = {
        place: max((layer for layer, places in enumerate(stay) if place in places), default=-1)
        for place in range(layers[0].scores)
    }
    order = sorted(lasts, key=lambda place: (-lasts[place], place))
    kept = []
    for layer, (heads, places) in enumerate(zip(layers, stay, strict=True)):
        scores = [place for place in order if lasts[place] >= layer]
        values = [new for new, place in enumerate(scores) if place in places]
        positions = [heads.values.index(scores[new]) for new in values]
        kept.append((scores, positions, LayerHeads(len(scores), tuple(values))))
    return kept


def keep_plain(
    layers: Sequence[LayerHeads], removed: Collection[tuple[int, int]]
) -> list[tuple[list[int], list[int], LayerHeads]]:
    """The same for plain attention, where layers have nothing to do with each other."""
    kept = []
    for layer, heads in enumerate(layers, 1):
        stay = [head for head in range(heads.scores) if (layer, head + 1) not in removed]
        kept.append((stay, stay, LayerHeads.whole(len(stay))))
    return kept


def remove_heads(
    state_dict: dict[str, Tensor], cfg: Any, removed: Collection[Head]
) -> tuple[dict[str, Tensor], str]:
    """The state dict of an `admin_transformer` without the heads `removed`, and its layout.

    Args:
        state_dict: not changed; what is not affected is shared with the result.
        cfg: of the model.
        removed: heads that it has.

    Returns:
        the state dict, and `heads_per_layer` of the model that it belongs to.

    Raises:
        UsageError: the model has no such head, or it is trained to align words.
    """
    require_heads(removed, cfg.layout)
    for head in sorted(aligned_heads(cfg).intersection(removed)):
        raise UsageError(
            f"head {head} has to stay: alignments of words come from it "
            f"(--alignment-layer {cfg.alignment_layer})"
        )
    result = dict(state_dict)
    after: dict[str, tuple[LayerHeads, ...]] = {}
    for kind, layers in cfg.heads.items():
        gone = {(head.layer, head.head) for head in removed if head.kind == kind}
        after[kind] = layers
        if not gone:
            continue
        kept = keep_chain(layers, gone) if is_residual(cfg, kind) else keep_plain(layers, gone)
        for index, (before, (scores, values, _)) in enumerate(zip(layers, kept, strict=True)):
            keep_heads(result, attention_name(kind, index), before, scores, values)
        after[kind] = tuple(heads for *_, heads in kept)
    return result, format_layout(after)


def masked_heads(loaded: LoadedModel) -> set[Head]:
    """Heads that the model masks by itself (`--head-mask`)."""
    return set(loaded.model.cfg.masked_heads)


def prune(checkpoint: Checkpoint, removed: Collection[Head]) -> Checkpoint:
    """The checkpoint without the heads `removed` and without those that it masks (`--head-mask`).

    It has no state of the optimizer, which belonged to the larger matrices. Numbers keep the type
    they have in the file.

    Args:
        checkpoint: of `admin_transformer` or fairseq's `transformer`.
        removed: heads such as `Head("E", 3, 1)`; `admin_nmt.modules.head_names.parse_heads` reads lists.

    Raises:
        UserError: another kind of model.
        UsageError: the model has no such head, or it is trained to align words.
    """
    plain: dict[str, Any] = plain_options() if is_stock(checkpoint) else {}
    settings = model_settings(checkpoint)
    set_values(settings, plain)
    # Through a model: old names of weights, and those of fairseq's own attention, become ours.
    model = build_model(settings, checkpoint.weights, "admin_transformer")
    dtype = next(value.dtype for value in checkpoint.weights.values() if value.is_floating_point())
    weights, layout = remove_heads(
        model.state_dict(), model.cfg, {*removed, *model.cfg.masked_heads}
    )
    # Layers that are compiled (`--compile`) do not serve other numbers of heads.
    changed = plain | {"heads_per_layer": layout, "head_mask": None, "compile": False}
    return checkpoint.replaced(cast(weights, dtype), changed)


def parameters_per_head(embed_dim: int, head_dim: int, memory_dim: int | None = None) -> int:
    """What removing one head saves, on paper: q, k, v rows with biases, and output columns.

    Args:
        embed_dim: D.
        head_dim: K.
        memory_dim: width of keys and values in encoder-decoder attention, else None.

    Examples:
        >>> parameters_per_head(512, 64)
        131264
    """
    key_dim = embed_dim if memory_dim is None else memory_dim
    return head_dim * ((embed_dim + 1) + 2 * (key_dim + 1) + embed_dim)
