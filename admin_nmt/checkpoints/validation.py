"""What every checkpoint has to be before anything else reads it."""

import re
from argparse import Namespace
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from admin_nmt.errors import UserError

#: End of the names of entries in which modules keep something else than a tensor.
_NOT_TENSORS = "_extra_state"


class UnsoundCheckpointError(UserError):
    """What is wrong with a checkpoint, without its name."""


#: Names that only forks of fairseq give: omegas of Transformer-Clinic, deepnmt and admin-torch.
_FORK_KEY = re.compile(
    r"(?:encoder|decoder)\.layers\.\d+\."
    r"(?!(?:self_attn|encoder_attn|ffn)_residual\.omega$)"
    r"(?:\w+_(ratio)_change|(rezero)_weight|.*omega.*)"
)


def of_another_repository(names: Iterable[str]) -> str | None:
    """What to do with weights that a fork of fairseq wrote under names of its own; None if none of
    the names of a state dict is such a name."""
    found = next(filter(None, map(_FORK_KEY.fullmatch, names)), None)
    if found is None:
        return None
    origin = "transformer-clinic (or deepnmt)" if found[1] or found[2] else "admin-torch"
    return (
        f"is of another repository (it has {found[0]}): 'admin-nmt convert' with --from {origin} "
        "makes one of ours"
    )


def require_sound(state: Any) -> None:
    """Refuse what no training run could have written.

    Args:
        state: content of a checkpoint file.

    Raises:
        UnsoundCheckpointError: the file holds no model, or the model has no entries; an entry is no
            tensor, has no elements, or is not a plain dense tensor; settings are of another type.
    """
    model = state.get("model") if isinstance(state, dict) else None
    if not isinstance(model, dict):
        raise UnsoundCheckpointError("it holds no model")
    if not model:
        raise UnsoundCheckpointError("its model has no entries")
    for name, value in model.items():
        if not (isinstance(name, str) and name.endswith(_NOT_TENSORS)):
            _require_sound_entry(name, value)
    _require_sound_settings(state)


def _require_sound_entry(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        kind = type(value).__name__
        raise UnsoundCheckpointError(f"model entry {name} is not a tensor but of type {kind}")
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        raise UnsoundCheckpointError(f"model entry {name} is not a plain dense tensor")
    if not value.numel():
        raise UnsoundCheckpointError(f"model entry {name} is empty (shape {tuple(value.shape)})")


def _require_sound_settings(state: dict[str, Any]) -> None:
    args, config = state.get("args"), state.get("cfg")
    sections = {"args": args, "cfg": config}
    if isinstance(config, Mapping):
        sections |= {f"cfg.{group}": config.get(group) for group in ("model", "task")}
    for name, section in sections.items():
        if not isinstance(section, Namespace | Mapping | None):
            kind = type(section).__name__
            raise UnsoundCheckpointError(f"its entry {name} is of type {kind}, not settings")
