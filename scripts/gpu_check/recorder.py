"""A CUDA graph's stand-in for the CPU, as strict as the real one.

It keeps operations and their tensors, and none of the Python around them. Operations that would make
the host wait for a GPU are refused while recording, as CUDA refuses them: `.item()` and its like on
anything that depends on the batch, on weights or on random numbers; tensors made of Python's numbers
(on a GPU a copy from the host's memory, and the same ones in every replay).

Recording runs the operations, because the CPU has no other way to know their results; what they wrote
into tensors that were there before is put back.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

T = TypeVar("T")
_aten = torch.ops.aten
#: What makes the host wait, if the answer comes from the device.
_WAITING = {
    _aten._local_scalar_dense, _aten.is_nonzero, _aten.equal, _aten.nonzero, _aten.masked_select,
    _aten._unique2, _aten.unique_dim, _aten.repeat_interleave,
}  # fmt: skip
#: `torch.tensor`, and lists of Python's as indices.
_FROM_PYTHON = _aten.lift_fresh


class RecordingError(RuntimeError):
    """An operation cannot be recorded."""


def _tensors(*values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Recording(TorchDispatchMode):
    """Runs operations and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, list[Tensor]]] = []
        #: Memory made here; everything else was there before.
        self.own: dict[int, Tensor] = {}
        #: Memory whose contents the host cannot know.
        self.unknown: set[int] = set()
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = {_memory(x) for x in _tensors(args, kwargs)}
        unknown = torch.Tag.nondeterministic_seeded in function.tags or any(
            memory in self.unknown or memory not in self.own for memory in given
        )
        packet = function.overloadpacket
        if packet is _FROM_PYTHON or (unknown and (packet in _WAITING or _by_mask(packet, args))):
            raise RecordingError(f"{function} needs the host, which a replay does without")
        if function._schema.is_mutable:
            self._keep_what_is_overwritten(function, args, kwargs)
        results = function(*args, **kwargs)
        made = [x for x in _tensors(results) if _memory(x) not in given]
        self.own |= {_memory(x): x for x in made}
        if unknown:
            written = _written(function, args, kwargs) if function._schema.is_mutable else []
            self.unknown |= {_memory(x) for x in (*made, *written)}
        if made or function._schema.is_mutable:  # else it is a view
            self.calls.append((function, args, kwargs, made))
        return results

    def _keep_what_is_overwritten(self, function: Any, args: tuple, kwargs: dict) -> None:
        for target in _written(function, args, kwargs):
            memory = _memory(target)
            if memory not in self.own and memory not in self.before:
                self.before[memory] = (target, target.clone())

    def put_back(self) -> None:
        """Undo what was written into memory from before."""
        for target, value in self.before.values():
            target.copy_(value)


def _by_mask(packet: Any, args: tuple) -> bool:
    """Whether the size of the result depends on a mask."""
    indices = args[1] if packet is _aten.index else ()
    return any(index is not None and index.dtype == torch.bool for index in indices)


def _written(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes to."""
    found = []
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            found += _tensors(value)
    return found


class CpuGraph:
    """Recorded operations."""

    def __init__(self, calls: list[tuple[Any, tuple, dict, list[Tensor]]]) -> None:
        self.calls = calls

    @torch.no_grad()
    def replay(self) -> None:
        """Run them again, each writing where it wrote before."""
        for function, args, kwargs, made in self.calls:
            results = function(*args, **kwargs)
            memories = set(map(_memory, _tensors(args, kwargs)))
            fresh = [x for x in _tensors(results) if _memory(x) not in memories]
            for target, source in zip(made, fresh, strict=True):
                target.copy_(source)


class CpuRecorder:
    """Makes `CpuGraph`s; see `admin_nmt.modules.graphs.Recorder`."""

    def warm_up(self, function: Callable[[], Any]) -> None:
        """Run `function`."""
        function()

    def record(self, function: Callable[[], T]) -> tuple[CpuGraph, T]:
        """Record `function`.

        Raises:
            RecordingError: an operation would make the host wait for a GPU.
        """
        with _Recording() as recording:
            result = function()
        with torch.no_grad():
            recording.put_back()
        return CpuGraph([_detached(call) for call in recording.calls]), result


def _detached(call: tuple[Any, tuple, dict, list[Tensor]]) -> tuple[Any, tuple, dict, list[Tensor]]:
    """A call whose tensors have no graph of autograd, so that it may write to them."""

    def detached(value: Any) -> Any:
        return value.detach() if isinstance(value, Tensor) else value

    function, args, kwargs, made = call
    return function, tree_map(detached, args), tree_map(detached, kwargs), tree_map(detached, made)
