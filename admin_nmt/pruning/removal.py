"""Removing heads from a checkpoint: smaller matrices, same outputs as with the heads masked.

The output projection W reads the concatenated heads, so attention is a sum over heads,

    Att(x) = b + sum_h W_h Att_h(x),

and a head that is masked leaves the sum without a trace: its rows of the q, k and v projections
(with their biases) and its columns W_h go, b stays. A layer without heads gives b.
"""

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from admin_nmt.evaluation.checkpoints import open_checkpoint
from admin_nmt.models._heads import PLACES
from admin_nmt.modules.heads import Head, format_layout, parse_heads, require_heads, without
from admin_nmt.pruning.loading import PLAIN, LoadedModel, is_stock, set_values

#: Projections of an attention and how many heads' worth of rows each has per head.
_PROJECTIONS = {"qkv_proj": 3, "q_proj": 1, "kv_proj": 2}


def keep_heads(state_dict: dict[str, Tensor], name: str, kept: list[int], count: int) -> None:
    """Keep the heads `kept` (from 0) of the `count` heads of the attention module `name`, in place.

    Each of its matrices becomes a copy, so that nothing of the old one stays in memory.
    """
    if not kept:
        for key in [key for key in state_dict if key.startswith(f"{name}.")]:
            if key != f"{name}.out_proj.bias":
                del state_dict[key]
        return
    for projection, parts in _PROJECTIONS.items():
        for suffix in ("weight", "bias"):
            key = f"{name}.{projection}.{suffix}"
            if key in state_dict:
                rows = state_dict[key]
                heads = rows.view(parts, count, -1, *rows.shape[1:])
                state_dict[key] = heads[:, kept].reshape(-1, *rows.shape[1:]).clone()
    columns = state_dict[f"{name}.out_proj.weight"]
    heads = columns.view(columns.shape[0], count, -1)
    state_dict[f"{name}.out_proj.weight"] = heads[:, kept].reshape(columns.shape[0], -1).clone()


def remove_heads(
    state_dict: dict[str, Tensor], layout: dict[str, tuple[int, ...]], removed: Collection[Head]
) -> dict[str, Tensor]:
    """The state dict of an `admin_transformer` without the heads `removed`.

    Args:
        state_dict: not changed; what is not affected is shared with the result.
        layout: its head counts.
        removed: heads that it has.

    Raises:
        UsageError: it has no such head.
    """
    require_heads(removed, layout)
    result = dict(state_dict)
    for kind, layer in sorted({(head.kind, head.layer) for head in removed}):
        count = layout[kind][layer - 1]
        kept = [h for h in range(count) if Head(kind, layer, h + 1) not in removed]
        stack, attention = PLACES[kind]
        keep_heads(result, f"{stack}.layers.{layer - 1}.{attention}", kept, count)
    return result


def masked_heads(loaded: LoadedModel) -> set[Head]:
    """Heads that the model masks by itself (`--head-mask`)."""
    mask = loaded.model.cfg.head_mask
    return set(parse_heads(mask)) if mask else set()


def pruned_checkpoint(loaded: LoadedModel, removed: Collection[Head]) -> dict[str, Any]:
    """A checkpoint like that of `loaded` without the heads `removed` and without masked ones.

    It has no state of the optimizer, which belonged to the larger matrices. Numbers keep the type
    they have in the file.
    """
    state = copy.copy(open_checkpoint(loaded.path))
    removed = set(removed) | masked_heads(loaded)
    dtype = next(value.dtype for value in state["model"].values() if value.is_floating_point())
    model = _cast(loaded.model.state_dict(), dtype)
    values: dict[str, Any] = dict(PLAIN) if is_stock(state, loaded.path) else {}
    values |= {
        "heads_per_layer": format_layout(without(loaded.layout, removed)),
        "head_mask": None,
    }
    if state.get("cfg") is not None:
        state["cfg"] = dict(state["cfg"]) | {"model": copy.copy(state["cfg"]["model"])}
        set_values(state["cfg"]["model"], values)
    if state.get("args") is not None:
        state["args"] = copy.copy(state["args"])
        set_values(state["args"], values)
    state["model"] = remove_heads(model, loaded.layout, removed)
    state["last_optimizer_state"] = None
    return state


def _cast(state_dict: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """On the CPU with floating-point numbers in `dtype`; tied matrices stay tied."""
    done: dict[tuple, Tensor] = {}
    result = {}
    for name, value in state_dict.items():
        place = (value.data_ptr(), value.shape)
        if place not in done or not value.numel():
            done[place] = value.cpu().to(dtype) if value.is_floating_point() else value.cpu()
        result[name] = done[place]
    return result


def num_parameters(state_dict: dict[str, Tensor]) -> int:
    """Numbers in a state dict, tied matrices once; buffers of version and position left out."""
    return sum(
        {
            (value.data_ptr(), value.shape): value.numel()
            for name, value in state_dict.items()
            if not name.endswith(("version", "_float_tensor"))
        }.values()
    )


def parameters_per_head(embed_dim: int, head_dim: int, memory_dim: int | None = None) -> int:
    """What removing one head saves, on paper: q, k, v rows with biases, and output columns.

    Args:
        embed_dim: D.
        head_dim: K.
        memory_dim: width of keys and values in encoder-decoder attention, else None.
    """
    key_dim = embed_dim if memory_dim is None else memory_dim
    return head_dim * ((embed_dim + 1) + 2 * (key_dim + 1) + embed_dim)
