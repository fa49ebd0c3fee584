"""What autograd keeps of a forward pass."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def kept_for_backward(
    function: Callable[[], Any], own: Iterable[Tensor] = ()
) -> tuple[Any, list[Tensor]]:
    """The result of `function`, and the tensors that it keeps for the backward.

    Args:
        function: takes nothing.
        own: tensors that are not counted, such as parameters.

    Returns:
        the result; one tensor for each piece of memory.
    """
    held = {tensor.untyped_storage().data_ptr() for tensor in own}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in held:
            found.setdefault(place, tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    return result, list(found.values())


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the whole pieces of memory behind `tensors`."""
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)
