"""Tensors of a state dict: which are tied, in which type they are, how many numbers they hold.

Names of a state dict may share one tensor (embeddings); it is recognised by its place in memory.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def place(value: Tensor) -> tuple:
    """Equal for two names of one tensor only."""
    return value.data_ptr(), value.shape, value.stride(), value.dtype


def leaders(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> first name in the state dict that holds the very same tensor."""
    first_name: dict[tuple, str] = {}
    return {
        # Empty tensors all lie at the same place.
        name: first_name.setdefault(place(value), name) if value.numel() else name
        for name, value in weights.items()
    }


def cast(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """On the CPU with floating-point numbers in `dtype`; tied tensors stay tied."""
    result: dict[str, Tensor] = {}
    for name, leader in leaders(weights).items():
        value = weights[name].cpu()
        own = value.to(dtype) if value.is_floating_point() else value
        result[name] = own if leader == name else result[leader]
    return result


def widened(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """16-bit entries in float32, the others as they are; tied tensors stay tied."""
    result: dict[str, Tensor] = {}
    for name, leader in leaders(weights).items():
        value = weights[name]
        half = value.dtype in (torch.float16, torch.bfloat16)
        own = value.float() if half else value
        result[name] = own if leader == name else result[leader]
    return result


def half_type(weights: Mapping[str, Tensor]) -> str | None:
    """`float16` or `bfloat16` where the state dict has such entries, else None."""
    found = {value.dtype for value in weights.values()} & {torch.float16, torch.bfloat16}
    return str(found.pop()).removeprefix("torch.") if found else None


def num_parameters(weights: Mapping[str, Tensor]) -> int:
    """Numbers in a state dict, tied tensors once; buffers of version and position left out."""
    return sum(
        weights[name].numel()
        for name, leader in leaders(weights).items()
        if name == leader and not name.endswith(("version", "_float_tensor"))
    )
