"""Stage `loss`: output projection and loss alone, forward and backward, one process, interleaved.

Models are nothing but an output projection, inputs are random features, targets have the lengths of
real batches (`benchmarks/rdrop.py`). Beside fairseq's criterions stands Liger's fused linear
cross-entropy where `liger-kernel` is installed (its label smoothing also counts the true type: 0.1 / V
of the loss), and ours with other chunks than `admin_nmt.ops.linear_loss` takes by itself. The rate is
that of the three products (logits, gradients of features and weight); memory is what a step needs
above what it started with, gradients included.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from common import clock, interleaved
from rdrop import OURS, STOCK, loss_problem, loss_step, small

from admin_nmt.ops.label_smoothing import LabelSmoothing
from admin_nmt.ops.linear_loss import linear_rdrop
from gpu_check import rates
from gpu_check.data import data_folder
from gpu_check.report import described
from gpu_check.stage import Context
from gpu_check.trainers import quiet

SMOOTHING, ALPHA = 0.1, 5.0


@dataclass(frozen=True)
class Case:
    """Tokens of a batch (of one pass), D, V, and with R-Drop (two passes) or without."""

    tokens: int
    dim: int
    types: int
    rdrop: bool = False

    @property
    def passes(self) -> int:
        return 2 if self.rdrop else 1


#: In order of worth: what the time does not allow is left out from the end.
CASES = (
    Case(8192, 1024, 32000),
    Case(4096, 1024, 32000, rdrop=True),
    Case(2048, 1024, 32000, rdrop=True),
    Case(4096, 512, 10000),
    Case(4096, 512, 10000, rdrop=True),
    Case(2048, 1024, 32000),
)
CHUNKS = (1024, 2048, 4096, 8192)
SMOKE_CASES = (Case(300, 16, 200), Case(300, 16, 200, rdrop=True))
SMOKE_CHUNKS = (64,)

#: A step on one sample, forward and backward.
Step = Callable[[Any], None]


def criterion_step(data: str, name: str, model: Any) -> Step:
    """A step of one of fairseq's criterions or ours."""
    criterion = small(data, name)[2]
    return lambda sample: loss_step(criterion, model, sample)


def function_step(model: Any, function: Callable[..., Any]) -> Step:
    """A step of `function(features, weight, target)`, which returns the loss."""
    weight = model.output_projection.weight
    return lambda sample: function(features_of(sample), weight, sample["target"]).backward()


def features_of(sample: Any) -> Any:
    """The input of the output projection."""
    return sample["net_input"]["src_tokens"]


def chunked(case: Case, pad: int, chunk_tokens: int) -> Callable[..., Any]:
    """Ours with chunks of `chunk_tokens`; both passes of R-Drop get the same features."""
    smoothing = LabelSmoothing.of(SMOOTHING, case.types)
    alpha = ALPHA if case.rdrop else 0.0

    def function(features: Any, weight: Any, target: Any) -> Any:
        both = features.expand(case.passes, *features.shape)
        return linear_rdrop(both, weight, None, target, smoothing, alpha, pad, chunk_tokens).loss

    return function


def liger(pad: int) -> Callable[..., Any] | None:
    """Liger's function, or None where it is not installed."""
    try:
        from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction
    except Exception as error:  # it may also not go with this PyTorch or Triton
        if not isinstance(error, ModuleNotFoundError):
            traceback.print_exception(error)
        return None

    def function(features: Any, weight: Any, target: Any) -> Any:
        found = LigerFusedLinearCrossEntropyFunction.apply(
            features.flatten(0, -2), weight, target.flatten(), None, None, pad, 0.0, SMOOTHING, "sum"
        )  # fmt: skip
        return found[0] if isinstance(found, tuple) else found

    return function


class Measured:
    """A step as a function of the round, with the peak of its memory above its start."""

    def __init__(self, device: str, model: Any, step: Step, samples: list[Any]) -> None:
        self.device, self.model, self.step, self.samples = device, model, step, samples
        self.peak = 0
        self.failure = ""

    def __call__(self, number: int) -> None:
        if self.failure:
            return
        sample = self.samples[number % len(self.samples)]
        # Those of the step before, which was another one's, belong to its memory.
        self.model.zero_grad(set_to_none=True)
        features_of(sample).grad = None
        cuda = self.device == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        try:
            self.step(sample)
        # Out of memory, or a kernel of others that does not run here: the rest of the table counts.
        except Exception as error:
            traceback.print_exception(error)
            self.failure = described(error)
        if cuda:
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - before)


def variants(context: Context, data: str, case: Case, model: Any, pad: int) -> dict[str, Step]:
    """What is compared; the first is what the ratios refer to."""
    stock, ours = STOCK[case.rdrop], OURS[case.rdrop]
    found = {
        "fairseq": criterion_step(data, stock, model),
        "ours": criterion_step(data, ours, model),
    }
    theirs = liger(pad) if context.device == "cuda" and not case.rdrop else None
    if theirs is not None:
        found["Liger"] = function_step(model, theirs)
    for chunk in SMOKE_CHUNKS if context.smoke else CHUNKS:
        found[f"ours, chunks of {chunk:,}"] = function_step(model, chunked(case, pad, chunk))
    return found


def measure(context: Context, data: str, case: Case, best: float) -> None:
    """Rows of one case; `best` is the rate of large products, flop/s."""
    rounds = 2 if context.smoke else 8
    dtype = "float32" if context.smoke else "bfloat16"
    model, samples = loss_problem(
        data, case.tokens, rounds, context.device, dtype, case.dim, case.types
    )
    pad = small(data, STOCK[0])[0].target_dictionary.pad()
    steps = variants(context, data, case, model, pad)
    runners = [Measured(context.device, model, step, samples) for step in steps.values()]
    # Each batch comes twice, and the second time counts: kernels are chosen by shape.
    times = interleaved(runners, rounds, rounds, partial(clock, context.device))
    flops = [
        6.0 * case.passes * sample["target"].numel() * case.dim * case.types for sample in samples
    ]
    for name, runner, seconds in zip(steps, runners, times, strict=True):
        about = {
            "tokens": case.tokens, "D": case.dim, "V": case.types,
            "loss": "R-Drop" if case.rdrop else "smoothing", "variant": name,
        }  # fmt: skip
        if runner.failure:
            if name.startswith("ours"):
                context.report.fail(", ".join(map(str, about.values())))
            context.report.row("projection and loss", **about, note=runner.failure)
            continue
        rate = median(f / s for f, s in zip(flops, seconds, strict=True))
        ratio = median(a / b for a, b in zip(times[0], seconds, strict=True))
        context.report.row(
            "projection and loss", **about, ms=1e3 * median(seconds),
            ratio="" if runners[0].failure else ratio,
            **{
                "peak MiB": runner.peak / 2**20 if runner.peak else "",
                "TFLOP/s": rate / 1e12, "of matmul rate": rate / best,
            },
        )  # fmt: skip


def run(context: Context) -> None:
    """Tables `projection and loss`, and `left out` for want of time."""
    quiet()
    data = str(data_folder(context))
    size, dtype = (128, torch.float32) if context.smoke else (8192, torch.bfloat16)
    best = rates.matmul_rate(context.device, dtype, size, size, size)
    for case in SMOKE_CASES if context.smoke else CASES:
        if context.seconds_left < (1.0 if context.smoke else 8.0):
            loss = "R-Drop" if case.rdrop else "smoothing"
            context.report.row("left out", tokens=case.tokens, D=case.dim, V=case.types, loss=loss)
            continue
        measure(context, data, case, best)
