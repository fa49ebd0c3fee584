"""Attention heads: how much each matters, which to remove, and removing them.

The method of "Are Sixteen Heads Really Better than One?" (Michel, Levy and Neubig 2019,
arXiv 1905.10650), for encoder self-, decoder self- and encoder-decoder attention.
"""

from admin_nmt.lazy import lazy_attributes

_HOMES = {"prune": "admin_nmt.pruning.removal"}

__all__ = ["prune"]

__getattr__ = lazy_attributes(__name__, _HOMES)
