"""What kind of model a checkpoint holds, and all settings of it."""

import copy
from argparse import Namespace
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from admin_nmt.checkpoints.settings import architecture
from admin_nmt.errors import UserError


def model_kind(path: str | Path, state: dict[str, Any]) -> str:
    """`admin_transformer` or `transformer`: the registered model behind a checkpoint's `--arch`.

    Raises:
        UserError: another one, or none.
    """
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY

    arch = architecture(state)
    kind = ARCH_MODEL_NAME_REGISTRY.get(str(arch))
    if kind not in ("admin_transformer", "transformer"):
        raise UserError(
            f"checkpoint {path} is of architecture {arch or 'unknown'}; only admin_transformer* and "
            "fairseq's transformer* can be folded or exported"
        )
    return kind


def model_settings(state: dict[str, Any]) -> Namespace:
    """All settings of the model, flat, those that the architecture sets included.

    Settings of the rest of the run, which fairseq keeps beside them, are left out.
    """
    from fairseq.models import ARCH_CONFIG_REGISTRY

    from admin_nmt.models._config import AdminTransformerConfig, to_config

    config = state.get("cfg")
    stored = config["model"] if config is not None else state.get("args")
    given = Namespace(**copy.deepcopy(stored if isinstance(stored, dict) else vars(stored)))
    ARCH_CONFIG_REGISTRY[str(architecture(state))](given)
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


def plain_value(value: Any) -> Any:
    """The value of a choice of fairseq's, which it keeps as an enumeration in some places."""
    return value.value if hasattr(value, "value") else value
