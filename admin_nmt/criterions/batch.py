"""Repeating a batch for several passes, without changing it."""

from typing import Any

from torch import Tensor


def repeat_batch(net_input: Any, batch_size: int, passes: int) -> Any:
    """`net_input` with every sentence `passes` times in a row.

    Recurrent encoders want sentences sorted by length; copies side by side keep that order. Only
    what has a batch dimension is copied: tensors whose first dimension is the batch, or else whose
    second is (time-first tensors); others, and everything when `passes` is 1, are handed on as they
    are. Nothing is changed in place.

    Args:
        net_input: a tensor, or dicts, lists and tuples of them to any depth.
        batch_size: B.
        passes: m.
    """
    if passes == 1:
        return net_input
    if isinstance(net_input, dict):
        return {key: repeat_batch(value, batch_size, passes) for key, value in net_input.items()}
    if isinstance(net_input, list | tuple):
        return type(net_input)(repeat_batch(value, batch_size, passes) for value in net_input)
    if not isinstance(net_input, Tensor):
        return net_input
    for dim in range(min(2, net_input.dim())):
        if net_input.shape[dim] == batch_size:
            return net_input.repeat_interleave(passes, dim)
    return net_input


def by_pass(output: Tensor, passes: int) -> Tensor:
    """What a model made of a repeated batch, (B * m, ...), as a view (m, B, ...)."""
    return output.unflatten(0, (len(output) // passes, passes)).transpose(0, 1)
