"""Training steps that are recorded once for each shape of batch and replayed from then on.

A step of a small batch is hundreds of kernels of a few microseconds, and launching each from Python
takes longer than it runs. A CUDA graph launches all of them at once, but it is only the operations:
the same memory, the same sizes, nothing that Python decides. So there is one recording (forward pass
with the loss, and backward pass) for each shape of batch:

- A batch is copied into the memory that the recording reads. What is not a tensor is part of the shape.
- Gradients are added to buffers that all recordings share; they become the `.grad` of the parameters
  when the backward pass runs, with what other steps have left in `.grad` since the last update.
- The loss is a tensor of autograd: its gradient (a loss scale, or 0 for a batch that does not count)
  is an input of the recorded backward pass.
- Random numbers are drawn by the operations, so each replay draws new ones.
- Shapes that are rare run as they are, and so do all new ones once there are `most` recordings or no
  memory for another.

All recordings share one pool of memory: a replay overwrites what the one before has left. Results
are therefore copies, and a backward pass must follow its own forward pass.
"""

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from admin_nmt.errors import out_of_memory
from admin_nmt.ops.recording import recording

logger = logging.getLogger(__name__)

T = TypeVar("T")
#: Key of the output of a step on which backward is called.
OBJECTIVE = "objective"


class Graph(Protocol):
    """Operations that can run again."""

    def replay(self) -> None:
        """Run them on what their memory holds now."""


class Recorder(Protocol):
    """Makes graphs."""

    def warm_up(self, function: Callable[[], Any]) -> None:
        """Run `function` once, as it will be recorded: what it sets up on first use is set up."""

    def record(self, function: Callable[[], T]) -> tuple[Graph, T]:
        """The operations of `function`, recorded and not run, and what it returned: tensors that
        hold results after a replay."""


class CudaRecorder:
    """CUDA graphs in one pool of memory; they must not run at the same time."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()

    def warm_up(self, function: Callable[[], Any]) -> None:
        """Run `function` on the stream on which it will be recorded."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            function()
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, function: Callable[[], T]) -> tuple[Graph, T]:
        """See `Recorder`."""
        graph = torch.cuda.CUDAGraph()
        # Other threads go on meanwhile: fairseq's data iterators copy batches into pinned memory, which
        # would spoil a recording that forbids such calls to the whole process (the default).
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            result = function()
        return graph, result


def _leaves(batch: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a nested dict with their names."""
    for name, value in batch.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield above + name, value


def _clones(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A nested dict with copies of its tensors."""
    copies: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, Mapping):
            copies[name] = _clones(value)
        else:
            copies[name] = value.clone() if isinstance(value, Tensor) else value
    return copies


def shape_of(batch: Mapping[str, Any]) -> Hashable:
    """What two batches have in common that one recording serves: names, sizes, types and devices of
    tensors, and everything else by its value."""
    return tuple(
        (name, tuple(value.shape), value.dtype, value.device)
        if isinstance(value, Tensor)
        else (name, repr(value))
        for name, value in _leaves(batch)
    )


def tensors_of(model: nn.Module) -> list[Tensor]:
    """Every tensor that the modules of a model hold, masks that they have cached included."""
    found: list[Tensor] = []
    for module in model.modules():
        for held in (module._parameters, module._buffers, vars(module)):
            found += [value for value in held.values() if isinstance(value, Tensor)]
    return found


class GradientBuffers:
    """Memory for the gradients of parameters that stays where it is from update to update.

    Args:
        parameters: those that require a gradient.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.buffers = [torch.zeros_like(p) for p in self.parameters]

    def add(self, gradients: Sequence[Tensor | None]) -> list[int]:
        """Add `gradients` to their buffers; the numbers of the parameters that have one."""
        found = {n: gradient for n, gradient in enumerate(gradients) if gradient is not None}
        if found:
            torch._foreach_add_([self.buffers[n] for n in found], list(found.values()))
        return list(found)

    @torch.no_grad()
    def take_over(self, used: Sequence[int]) -> None:
        """Let the buffers of the parameters `used` be their `.grad`, with the values it has now."""
        cleared, filled, sources = [], [], []
        for number in used:
            parameter, buffer = self.parameters[number], self.buffers[number]
            if parameter.grad is buffer:
                continue
            if parameter.grad is None:
                cleared.append(buffer)
            else:
                filled.append(buffer)
                sources.append(parameter.grad)
            parameter.grad = buffer
        if cleared:
            torch._foreach_zero_(cleared)
        if filled:
            torch._foreach_copy_(filled, sources)


@dataclass
class _Step:
    """One recording.

    Attributes:
        inputs: the batch that it reads, a nested dict.
        figures: what it computes, `OBJECTIVE` included.
        scale: the gradient of the objective that its backward pass reads, of no dimensions.
        forward: to be replayed after `inputs` are filled.
        backward: adds the gradients to the buffers.
        used: numbers of the parameters that get a gradient.
        held: what the graphs read besides: it must not be freed.
    """

    inputs: dict[str, Any]
    figures: dict[str, Tensor]
    scale: Tensor
    forward: Graph
    backward: Graph
    used: list[int]
    held: list[Tensor]

    def fill(self, batch: Mapping[str, Any]) -> None:
        """Copy the tensors of `batch` into the inputs."""
        for (_, target), (_, source) in zip(_leaves(self.inputs), _leaves(batch), strict=True):
            if isinstance(target, Tensor):
                target.copy_(source)


class StepGraphs:
    """The recordings of one model's training steps, by shape of batch.

    Args:
        model: its parameters that require a gradient get one; it is not wrapped in anything.
        recorder: makes the graphs.
        most: recordings, at most.
        after: how often a shape is run as it is before it is recorded.
    """

    def __init__(
        self, model: nn.Module, recorder: Recorder, most: int = 32, after: int = 2
    ) -> None:
        self.model, self.recorder, self.most, self.after = model, recorder, most, after
        self.gradients = GradientBuffers([p for p in model.parameters() if p.requires_grad])
        device = self.gradients.buffers[0].device
        #: Makes the replayed objective a tensor that requires a gradient.
        self._anchor = torch.zeros((), device=device, requires_grad=True)
        self._generators = [device.index or 0] if device.type == "cuda" else []
        self._steps: dict[Hashable, _Step] = {}
        self._seen: Counter[Hashable] = Counter()
        #: Whether it was said that there will be no more recordings.
        self._full = False
        #: Counts forward passes: only the last one has its activations still.
        self.number = 0
        self.replays = 0

    def __len__(self) -> int:
        """Recordings so far."""
        return len(self._steps)

    def __call__(
        self,
        kind: Hashable,
        batch: Mapping[str, Any],
        function: Callable[[Mapping[str, Any]], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """`function(batch)`, by a replay if its shape is frequent.

        Args:
            kind: tells apart what different functions do with batches of the same shape.
            batch: a nested dict.
            function: computes tensors of a batch, among them `OBJECTIVE`, of no dimensions, with a
                graph of autograd. It reads `batch` and tensors that the model holds, and asks no
                tensor for its values where `admin_nmt.ops.recording` says that it is recorded.

        Returns:
            what `function` returns. The gradients of the objective reach the parameters alone.
        """
        shape = (kind, shape_of(batch))
        step = self._steps.get(shape)
        if step is None:
            if self._to_be_recorded(shape):
                step = self._record_if_it_fits(batch, function)
            if step is None:
                return function(batch)
            self._steps[shape] = step
        step.fill(batch)
        objective = _Replayed.apply(self._anchor, self, step)
        return {
            name: objective if name == OBJECTIVE else figure.clone()
            for name, figure in step.figures.items()
        }

    def _to_be_recorded(self, shape: Hashable) -> bool:
        self._seen[shape] += 1
        if self._seen[shape] <= self.after:
            return False
        if len(self._steps) < self.most:
            return True
        if not self._full:
            self._full = True
            logger.info(
                "%d shapes of batches are recorded; others run without a CUDA graph (fewer shapes: "
                "--num-batch-buckets)",
                self.most,
            )
        return False

    def _record_if_it_fits(
        self,
        batch: Mapping[str, Any],
        function: Callable[[Mapping[str, Any]], dict[str, Tensor]],
    ) -> _Step | None:
        """`_record`; where memory does not suffice (it needs more than the step itself), None, and no
        other shape is recorded from then on."""
        try:
            return self._record(batch, function)
        except RuntimeError as error:
            if not _is_lack_of_memory(error):
                raise
        # Only here the exception is gone, and with it what its frames hold of the failed recording.
        self.most, self._full = len(self._steps), True
        logger.warning(
            "no memory to record another shape of batches: %d are recorded, others run without a CUDA "
            "graph (a smaller --max-tokens leaves more memory)",
            self.most,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _record(
        self,
        batch: Mapping[str, Any],
        function: Callable[[Mapping[str, Any]], dict[str, Tensor]],
    ) -> _Step:
        """Record one shape; neither gradients nor random number generators change."""
        inputs = _clones(batch)
        scale = torch.ones_like(self._anchor, requires_grad=False)
        parameters = self.gradients.parameters

        def gradients(objective: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(
                objective, parameters, scale.to(objective.dtype), allow_unused=True
            )

        with torch.random.fork_rng(self._generators):
            with recording():
                self.recorder.warm_up(lambda: gradients(function(inputs)[OBJECTIVE]))
            with recording():
                forward, figures = self.recorder.record(lambda: function(inputs))
            with recording():
                backward, used = self.recorder.record(
                    lambda: self.gradients.add(gradients(figures[OBJECTIVE]))
                )
        figures = {name: figure.detach() for name, figure in figures.items()}
        return _Step(inputs, figures, scale, forward, backward, used, tensors_of(self.model))


def _is_lack_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, or the end of a recording failed because it had."""
    while error is not None and not out_of_memory(error):
        error = error.__context__
    return error is not None


class _Replayed(Function):
    """The objective of a recorded step, for autograd."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, anchor: Tensor, graphs: StepGraphs, step: _Step
    ) -> Tensor:
        graphs.number += 1
        graphs.replays += 1
        ctx.graphs, ctx.step, ctx.number = graphs, step, graphs.number
        step.forward.replay()
        return step.figures[OBJECTIVE].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, None]:  # type: ignore[override]
        graphs, step = ctx.graphs, ctx.step
        if ctx.number != graphs.number:
            raise RuntimeError(
                "another batch has been replayed since: its memory is that of this one"
            )
        step.scale.copy_(grad)
        graphs.gradients.take_over(step.used)
        step.backward.replay()
        return None, None, None
