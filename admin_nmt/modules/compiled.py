"""Layers under `torch.compile` while they train (`--compile`).

Regional: what is compiled is the forward function of a kind of layer, once for all layers that are
made alike, with sizes that may change from batch to batch. A model of 60 and 12 layers thus takes a
handful of compilations: the first layer of a stack has no omega before it, the last one of the decoder
computes weights that fairseq asks for, and masks may be missing. Outside training the layers run as
they are; names in checkpoints do not change.
"""

from collections.abc import Callable, Iterable
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

#: Variants of one function that are compiled before PyTorch gives up on it.
_MOST_VARIANTS = 32


@cache
def _compiled(function: Callable, backend: Any) -> Callable:
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _MOST_VARIANTS)
    return torch.compile(function, dynamic=True, backend=backend)


def _contiguous(value: Any) -> Any:
    """Views come with many strides, each of which would be compiled anew."""
    return value.contiguous() if isinstance(value, Tensor) else value


def compile_layers(layers: Iterable[nn.Module], backend: Any = "inductor") -> None:
    """Let `layers` run compiled in training mode.

    Args:
        layers: encoder or decoder layers that are not wrapped in anything.
        backend: of `torch.compile`.
    """

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        function = type(self).forward
        if not self.training:
            return function(self, *args, **kwargs)
        kwargs = {name: _contiguous(value) for name, value in kwargs.items()}
        return _compiled(function, backend)(self, *map(_contiguous, args), **kwargs)

    for layer in layers:
        # A bound method, so that a deep copy of the layer gets its own.
        layer.forward = MethodType(forward, layer)
