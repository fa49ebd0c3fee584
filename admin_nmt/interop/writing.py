"""A converted model with a complete configuration, as fairseq's trainer would have written it."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.checkpoints.stock import OPTIMIZER_DROPPED, STOCK_CRITERION, stock_state
from admin_nmt.errors import UserError
from admin_nmt.interop.names import float32, modern_names, require_agreement, sizes_of
from admin_nmt.interop.reading import Foreign, open_foreign
from admin_nmt.models.loading import build_model, random_batch
from admin_nmt.models.settings import model_settings
from admin_nmt.modules.multihead_attention import fuse_projections

#: More positions than any model has; a larger number would only fill the memory.
_MOST_POSITIONS = 1_000_000
#: Settings that change what a model computes and that no model of fairseq's has today.
_GONE = ("layer_wise_attention", "cross_self_attention")


@dataclass(frozen=True)
class Converted:
    """A converted checkpoint.

    Attributes:
        checkpoint: with another model, not saved yet.
        lines: human-readable summary, one fact per line.
    """

    checkpoint: Checkpoint
    lines: list[str]


#: Settings of a model, and what there is to say about it.
Taken = tuple[dict[str, Any], list[str]]


def converted(
    path: str | Path, take_over: Callable[[Foreign, dict[str, Tensor]], Taken]
) -> Converted:
    """A checkpoint of another repository with what `take_over` makes of its model.

    Args:
        path: the file.
        take_over: gets the file and its state dict in today's names and in float32, which it turns into
            that of our model in place; returns the model's settings, complete, and lines for the user.

    Raises:
        UserError: no such checkpoint, or one that is damaged or cannot be represented.
    """
    foreign = open_foreign(path)
    shared = foreign.flag("share_all_embeddings") or foreign.flag(
        "share_decoder_input_output_embed"
    )
    try:
        model, other_type = float32(modern_names(foreign.checkpoint.weights, shared))
        settings, lines = take_over(foreign, model)
        result = _checkpoint(foreign, settings, model)
    except UserError as error:
        raise UserError(f"checkpoint {path} cannot be converted: {error}") from error
    if other_type:
        lines.append(f"the checkpoint was {other_type}; saved in float32")
    if foreign.checkpoint.state.get("last_optimizer_state") is not None:
        lines.append(OPTIMIZER_DROPPED)
    return Converted(result, lines)


def complete_settings(
    foreign: Foreign, model: Mapping[str, Tensor], name: str, **ours: Any
) -> dict[str, Any]:
    """All settings of the model: those of the file, the rest as its architecture sets them.

    Args:
        foreign: the file.
        model: its state dict in today's names, which knows the sizes.
        name: what it becomes, `transformer` or `admin_transformer`.
        ours: settings of our model.

    Raises:
        UserError: settings contradict the weights, make no sense, or are not served today.
    """
    from fairseq.models import ARCH_CONFIG_REGISTRY

    for option in _GONE:
        if foreign.settings.get(option):
            raise UserError(
                f"it was trained with --{option.replace('_', '-')}, which is not served"
            )
    given = {k: v for k, v in foreign.settings.items() if k in _known_settings() and v is not None}
    for new in ("max_source_positions", "max_target_positions"):
        # Before fairseq 0.5 there was one limit for both.
        number = given.setdefault(new, foreign.settings.get("max_positions", 1024))
        if type(number) is not int or not 0 < number <= _MOST_POSITIONS:
            raise UserError(f"its setting {new} is {str(number)[:40]}, not a number of positions")
    sizes = sizes_of(model)
    require_agreement(given, sizes)
    settings = Namespace(**given | sizes)
    if foreign.arch in ARCH_CONFIG_REGISTRY:
        ARCH_CONFIG_REGISTRY[foreign.arch](settings)
    vars(settings).update(ours, encoder_embed_path=None, decoder_embed_path=None)
    ARCH_CONFIG_REGISTRY[name](settings)
    return vars(settings) | {"_name": name, "arch": name}


def _known_settings() -> set[str]:
    """Names of all settings of fairseq's Transformer, flat."""
    from fairseq.models.transformer import TransformerConfig

    names = set()
    for field in fields(TransformerConfig):
        value = getattr(TransformerConfig(), field.name)
        if is_dataclass(value):
            names |= {f"{field.name}_{sub.name}" for sub in fields(value)}
        else:
            names.add(field.name)
    return {name for name in names if not name.endswith("_name")}


def _checkpoint(foreign: Foreign, settings: dict[str, Any], model: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint of fairseq's form without optimizer state.

    Args:
        foreign: where the model is from.
        settings: from `complete_settings`.
        model: state dict in fairseq's names of today; gets ours where it becomes one of our models.

    Raises:
        UserError: projections of an attention do not fit together; weights are missing, left over or
            of another shape; or the settings build no model.
    """
    from fairseq.dataclass.configs import FairseqConfig
    from omegaconf import OmegaConf

    if settings["_name"] == "admin_transformer":
        _fuse_all(model)

    config: Any = OmegaConf.to_container(OmegaConf.structured(FairseqConfig()), enum_to_str=True)
    for group in ("optimizer", "lr_scheduler", "scoring", "bpe", "tokenizer", "simul_type"):
        config[group] = None
    config["model"] = settings
    config["task"] = _task(foreign.task, settings)
    config["criterion"] = dict(STOCK_CRITERION)
    state = stock_state(config, model, _num_updates(foreign.checkpoint.state))
    result = Checkpoint(foreign.path, state)
    _require_loadable(result)
    return result


def _require_loadable(converted: Checkpoint) -> None:
    """Build the model with its weights and run it on random sentences."""
    try:
        settings = model_settings(converted)
        model = build_model(settings, converted.weights, str(converted.family))
        with torch.no_grad():
            logits = model(**random_batch(settings, converted.weights))[0]
    except Exception as error:  # whatever fairseq makes of damaged settings
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"its weights and settings make no model ({told[:300]})") from error
    if not torch.isfinite(logits).all():
        raise UserError("its model computes no numbers")


def _fuse_all(model: dict[str, Tensor]) -> None:
    """Our attention's names, by which a state dict is told from a plain one's."""
    for name in [name for name in model if name.endswith("_attn.k_proj.weight")]:
        attention = name.removesuffix(".k_proj.weight")
        try:
            fuse_projections(model, attention, attention.endswith("self_attn"))
        except RuntimeError as error:
            raise UserError(f"projections of {attention} differ in width") from error


def _num_updates(state: Mapping[str, Any]) -> int:
    history = state.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else {}
    number = last.get("num_updates", 0) if isinstance(last, dict) else 0
    return number if type(number) is int else 0


def _task(given: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of fairseq's `translation`, whatever the task was called."""
    task: dict[str, Any] = {"_name": "translation"}
    data = given.get("data")
    data = data[0] if isinstance(data, list) and data else data
    for name, value in (
        ("data", data),
        ("source_lang", given.get("source_lang")),
        ("target_lang", given.get("target_lang")),
    ):
        task[name] = value if isinstance(value, str) else None
    for name, default in (("left_pad_source", True), ("left_pad_target", False)):
        value = given.get(name, default)  # older ones kept the text of the option
        task[name] = value if isinstance(value, bool) else str(value).lower() in ("true", "1")
    for name in ("max_source_positions", "max_target_positions"):
        task[name] = settings[name]
    return task
