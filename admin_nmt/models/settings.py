"""All settings of the model that a checkpoint holds."""

import copy
from argparse import Namespace
from dataclasses import fields, is_dataclass
from typing import Any

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.option_names import plain_value


def model_settings(checkpoint: Checkpoint) -> Namespace:
    """All settings of the model, flat, those that the architecture sets included.

    Settings of the rest of the run, which fairseq keeps beside them, are left out.
    """
    from fairseq.models import ARCH_CONFIG_REGISTRY

    from admin_nmt.models.config import AdminTransformerConfig, to_config

    config = checkpoint.state.get("cfg")
    stored = config["model"] if config is not None else checkpoint.state.get("args")
    given = Namespace(**copy.deepcopy(stored if isinstance(stored, dict) else vars(stored)))
    ARCH_CONFIG_REGISTRY[str(checkpoint.architecture)](given)
    structured = to_config(given)
    flat: dict[str, Any] = {}
    for field in fields(AdminTransformerConfig):
        value = getattr(structured, field.name)
        if not is_dataclass(value):
            flat[field.name] = value
            continue
        for sub in fields(value):
            flat[f"{field.name}_{sub.name}"] = getattr(value, sub.name)
    flat = {name: value for name, value in flat.items() if not name.endswith("_name")}
    # As the user gave it where it was given: fairseq parses some values only when it builds.
    flat = {name: plain_value(getattr(given, name, value)) for name, value in flat.items()}
    return Namespace(**flat)
