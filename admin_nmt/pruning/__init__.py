"""Attention heads: how much each matters, which to remove, and removing them.

The method of "Are Sixteen Heads Really Better than One?" (Michel, Levy and Neubig 2019,
arXiv 1905.10650), for encoder self-, decoder self- and encoder-decoder attention.
"""

from typing import Any

_HOMES = {"prune": "admin_nmt.pruning.removal"}

__all__ = ["prune"]


def __getattr__(name: str) -> Any:
    """Load what is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
