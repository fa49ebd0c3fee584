"""Recorded steps compute what steps compute, for all batches of their shape."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from admin_nmt.errors import UsageError
from admin_nmt.modules.graphs import OBJECTIVE, StepGraphs, shape_of
from gpu_check.recorder import CpuRecorder, RecordingError


class Counted(CpuRecorder):
    """Counts recordings."""

    number = 0

    def record(self, function: Callable[[], Any]) -> Any:
        self.number += 1
        return super().record(function)


class Small(nn.Module):
    """A model with a parameter that is never used, and a mask made when it is first needed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.unused = nn.Linear(3, 3), nn.Parameter(torch.ones(2))
        self.mask = torch.empty(0)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        x = batch["x"]
        if len(self.mask) < len(x):
            self.mask = torch.arange(1.0, len(x) + 1)
        loss = (self.layer(x).square().sum(-1) * self.mask[: len(x)]).sum()
        return {OBJECTIVE: loss, "size": x.abs().sum()}


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    return Small()


def batch_of(rows: int) -> dict[str, Any]:
    return {"x": torch.randn(rows, 3)}


def check_equal(model: Small, steps: StepGraphs, batches: list[dict], scale: float = 1.0) -> None:
    """Sum of the gradients of several steps, and their figures, against plain steps."""
    plain = copy.deepcopy(model)
    for one in (model, plain):
        one.zero_grad()
    for batch in batches:
        found, expected = steps("", batch, model.forward), plain(batch)
        for name, figure in expected.items():
            torch.testing.assert_close(found[name].detach(), figure.detach())
        (found[OBJECTIVE] * scale).backward()
        (expected[OBJECTIVE] * scale).backward()
    assert model.unused.grad is None
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_steps_and_their_sums_equal_plain_ones_with_any_scale(model: Small) -> None:
    steps = StepGraphs(model, CpuRecorder(), after=1)
    frequent, rare = (lambda: batch_of(4)), (lambda: batch_of(5))
    check_equal(model, steps, [frequent()])
    assert (len(steps), steps.replays) == (0, 0)
    check_equal(model, steps, [frequent()])  # recorded
    assert (len(steps), steps.replays) == (1, 1)
    check_equal(model, steps, [frequent(), frequent()], scale=128.0)
    assert steps.replays == 3
    # Gradients of plain steps before, between and after replays; they replace the cached mask.
    check_equal(model, steps, [rare(), frequent()], scale=0.5)
    check_equal(model, steps, [frequent(), batch_of(6), frequent(), batch_of(7)])
    check_equal(model, steps, [frequent()], scale=0.0)
    with torch.no_grad():
        model.layer.weight.mul_(2)  # as an optimizer does
    check_equal(model, steps, [frequent()])
    assert steps.replays == 8 and len(steps) == 1


def test_few_shapes_are_recorded(model: Small, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    recorder = Counted()
    steps = StepGraphs(model, recorder, most=2, after=2)
    for _ in range(4):
        for rows in (1, 2, 3, 4):
            check_equal(model, steps, [batch_of(rows)])
    assert len(steps) == 2 and recorder.number == 4  # forward and backward of two shapes
    assert steps.replays == 4
    assert caplog.text.count("2 shapes of batches are recorded") == 1


class Short(Counted):
    """Has memory for two recordings, and says so at the end of the third as PyTorch does."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def record(self, function: Callable[[], Any]) -> Any:
        try:
            if self.number == 2:
                raise self.error
            return super().record(function)
        except type(self.error):
            raise RuntimeError("the capture has failed")  # noqa: B904  (as a context manager does)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("Tried to allocate"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
)
def test_without_memory_to_record_steps_run_as_they_are(
    model: Small, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    steps = StepGraphs(model, Short(error), after=1)
    for _ in range(4):
        for rows in (1, 2, 3):
            check_equal(model, steps, [batch_of(rows)])
    assert len(steps) == 1 and steps.replays == 3
    assert caplog.text.count("no memory to record another shape of batches: 1 are recorded") == 1
    assert "a smaller --max-tokens" in caplog.text


def test_other_failures_of_a_recording_are_not_hidden(model: Small) -> None:
    class Failing(CpuRecorder):
        def record(self, function: Callable[[], Any]) -> Any:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        StepGraphs(model, Failing(), after=0)("", batch_of(2), model.forward)


def test_what_a_shape_is() -> None:
    def batch(**more: Any) -> dict[str, Any]:
        return {"net_input": {"tokens": torch.zeros(2, 3)}, "prefix": None, **more}

    assert shape_of(batch()) == shape_of(batch())
    others = [
        batch(prefix=1), batch(net_input={"tokens": torch.zeros(3, 2)}),
        batch(net_input={"words": torch.zeros(2, 3)}), batch(more=2),
        batch(net_input={"tokens": torch.zeros(2, 3, dtype=torch.int64)}),
    ]  # fmt: skip
    assert len({shape_of(other) for other in [batch(), *others]}) == len(others) + 1


def test_what_is_done_with_a_shape_is_part_of_it(model: Small) -> None:
    steps = StepGraphs(model, CpuRecorder(), after=0)
    batch = batch_of(2)
    (once,) = (steps("once", batch, model.forward)[OBJECTIVE].item(),)

    def twice(batch: dict[str, Any]) -> dict[str, Tensor]:
        return {OBJECTIVE: 2 * model(batch)[OBJECTIVE]}

    assert steps("twice", batch, twice)[OBJECTIVE].item() == pytest.approx(2 * once)
    assert len(steps) == 2


def test_results_outlive_the_next_replay_and_a_late_backward_pass_is_refused(model: Small) -> None:
    steps = StepGraphs(model, CpuRecorder(), after=0)
    first, other = batch_of(2), batch_of(2)
    found = steps("", first, model.forward)
    kept = {name: figure.item() for name, figure in found.items()}
    steps("", other, model.forward)
    assert {name: figure.item() for name, figure in found.items()} == kept
    with pytest.raises(RuntimeError, match="another batch has been replayed since"):
        found[OBJECTIVE].backward()


def test_recording_changes_neither_gradients_nor_random_numbers(model: Small) -> None:
    def noisy(batch: dict[str, Any]) -> dict[str, Tensor]:
        return {OBJECTIVE: (model.layer(batch["x"]) * torch.rand(2, 3)).sum()}

    steps = StepGraphs(model, CpuRecorder(), after=1)
    batch = batch_of(2)
    objectives, gradients = [], []
    for _ in range(3):  # plain, recorded, replayed
        torch.manual_seed(1)
        model.zero_grad()
        objective = steps("", batch, noisy)[OBJECTIVE]
        objective.backward()
        objectives.append(objective.item())
        gradients.append(model.layer.weight.grad.clone())
    assert objectives[0] == objectives[1] == objectives[2]
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])
    assert steps("", batch, noisy)[OBJECTIVE].item() != objectives[0]  # drawn anew


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x if x.any() else -x,
        lambda x: x * int(torch.randint(9, ())),
        lambda x: x * torch.tensor([1.0, 2.0, 3.0]),
        lambda x: x[:, [0, 2]],
    ],
    ids=["item", "mask", "bool", "seed", "from Python", "list as index"],
)
def test_the_stand_in_refuses_what_cuda_refuses(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(RecordingError):
        CpuRecorder().record(lambda: function(torch.zeros(2, 3) + torch.rand(2, 3)))
    CpuRecorder().record(lambda: int(torch.zeros(3).shape[0] * torch.zeros(()).item()))


OPTIONS = [
    (),
    (
        "--fused-residual-norm",
        "--no-cross-attention",
        "--encoder-learned-pos",
        "--decoder-learned-pos",
    ),
    ("--residual-attention", "all", "--heads-per-layer", "E:4,2 A:4,4 D:4,3"),
]


@pytest.fixture(scope="module")
def samples(task: Any) -> list[Any]:
    """Batches of one shape with other sentences and other padding."""
    dataset = task.dataset("train")
    found: dict[Any, list] = {}
    for start in range(0, 196, 4):
        sample = dataset.collater([dataset[index] for index in range(start, start + 4)])
        found.setdefault(shape_of({"x": sample["net_input"], "y": sample["target"]}), []).append(
            sample
        )
    return max(found.values(), key=len)[:4]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_models_compute_the_same_without_waiting(
    build: Callable[..., Any], parse: Callable[..., Any], task: Any, samples: list, options: tuple
) -> None:
    """Losses and gradients of each batch, recorded on another one; dropout is drawn as it was."""
    from admin_nmt.host.graphs import replayed

    assert len(samples) == 4 and len({s["ntokens"] for s in samples}) > 1
    passes = () if options else ("--criterion", "label_smoothed_cross_entropy_rdrop")
    criterion = task.build_criterion(
        parse("--criterion", "admin_label_smoothed_cross_entropy", "--label-smoothing", "0.1",
              "--report-accuracy", *passes).criterion
    )  # fmt: skip
    model = build("--dropout", "0.1", "--attention-dropout", "0.1", *options).train()
    plain = copy.deepcopy(model)
    steps = StepGraphs(model, CpuRecorder(), after=1)
    for number, sample in enumerate(samples):
        results = []
        for one, run in ((model, lambda *a: replayed(steps, criterion, *a)), (plain, criterion)):
            torch.manual_seed(number)
            one.zero_grad()
            loss, size, log = run(one, sample)
            loss.backward()
            results.append(
                (loss.detach(), size, log, {n: p.grad for n, p in one.named_parameters()})
            )
        (loss, size, log, gradients), (expected, its_size, its_log, exact) = results
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
        assert size == its_size and log.keys() == its_log.keys()
        for name, value in its_log.items():
            torch.testing.assert_close(torch.as_tensor(log[name]), torch.as_tensor(value), rtol=1e-5, atol=1e-6)  # fmt: skip
        for name, gradient in exact.items():
            if gradient is None:
                assert gradients[name] is None
            else:
                torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5)
    assert steps.replays == 3


@pytest.mark.parametrize(
    "other",
    [
        ("--compile",),
        ("--checkpoint-activations",),
        ("--encoder-layerdrop", "0.1"),
        ("--decoder-layerdrop", "0.1"),
        ("--adaptive-softmax-cutoff", "10"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_recorded_is_refused_by_name(
    build: Callable[..., Any], other: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match=f"--cuda-graphs is not supported with {other[0]}"):
        build("--cuda-graphs", *other)
