"""Settings in a fairseq checkpoint, whichever of fairseq's two ways they are kept in."""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from admin_nmt.data.data_folder import language_pairs, split_pair

#: Settings of fairseq's Transformer that change what it computes, but not the names and shapes of its
#: weights.
TRANSFORMER_FUNCTION_SETTINGS = (
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_normalize_before",
    "decoder_normalize_before",
    "activation_fn",
    "no_scale_embedding",
    "no_token_positional_embeddings",
)


def function_settings(family: str | None) -> dict[str, Any]:
    """All settings whose value changes what given weights compute.

    Args:
        family: name of a registered model, None where it is not known.

    Returns:
        Name -> value where a checkpoint does not have it: None (unknown) for
        `TRANSFORMER_FUNCTION_SETTINGS`, that of a plain Transformer ("none" for none) for the options of
        which the model's class says that they change what weights compute (`changes_function`).
    """
    from fairseq.models import MODEL_REGISTRY

    ours = getattr(MODEL_REGISTRY.get(family), "changes_function", {})
    return dict.fromkeys(TRANSFORMER_FUNCTION_SETTINGS) | {
        name: value or "none" for name, value in ours.items()
    }


def setting(state: Mapping[str, Any], group: str, name: str) -> Any:
    """One setting of the training run, or None: from `cfg` (`cfg.model.arch`), else from `args`.

    `encoder_layers` may be `encoder.layers`, as trainings of `fairseq-hydra-train` have it.
    """
    config = state.get("cfg")
    if config is not None:
        values = _get(config, group)
        value = _get(values, name)
        stack, _, rest = name.partition("_")
        if value is None and stack in ("encoder", "decoder"):
            value = _get(_get(values, stack), rest)
        return value
    return _get(state.get("args"), name)


def _get(container: Any, name: str) -> Any:
    if isinstance(container, dict):
        return container.get(name)
    return getattr(container, name, None)


def architecture(state: Mapping[str, Any]) -> str | None:
    """The name given to `--arch`, None if the checkpoint does not say."""
    return setting(state, "model", "arch") or setting(state, "model", "_name")


def data_folder(state: Mapping[str, Any]) -> Path | None:
    """The first of the data folders of the training, None if the checkpoint does not say."""
    folder = str(setting(state, "task", "data") or "").split(os.pathsep)[0]
    return Path(folder) if folder else None


def languages(state: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """(source, target) that a checkpoint was trained on, None where it is not known.

    fairseq does not record languages that it took from the names of its files: they still tell if
    they are where they were.
    """
    source, target = (setting(state, "task", side) for side in ("source_lang", "target_lang"))
    folder = data_folder(state)
    if source is None and target is None and folder is not None and folder.is_dir():
        pairs = language_pairs(folder)
        if len(pairs) == 1:
            source, target = split_pair(folder, pairs[0])
    return source, target


def set_values(container: Any, values: Mapping[str, Any]) -> None:
    """Set settings in whichever container a checkpoint keeps them (`Namespace`, dictionary, or the
    `DictConfig` that fairseq makes of it), in place."""
    from omegaconf import DictConfig, open_dict

    with open_dict(container) if isinstance(container, DictConfig) else ExitStack():
        for name, value in values.items():
            if isinstance(container, dict):
                container[name] = value
            else:
                setattr(container, name, value)
