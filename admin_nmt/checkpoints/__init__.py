"""What knows a checkpoint file: read safely, checked, asked for its settings, averaged, saved."""

from typing import Any

_HOMES = {
    "Checkpoint": "admin_nmt.checkpoints.checkpoint",
    "average": "admin_nmt.checkpoints.averaging",
    "extend_vocabulary": "admin_nmt.checkpoints.vocabulary",
}

__all__ = ["Checkpoint", "average", "extend_vocabulary"]


def __getattr__(name: str) -> Any:
    """Load what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
