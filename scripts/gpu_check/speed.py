"""Stage `speed`: training updates of our model against fairseq's, in one process, interleaved.

Every update is that of fairseq's trainer, on the same batches of real sentences. `fairseq` is its
`transformer` with its criterion and its Adam; `fairseq, fused Adam` the same with our optimizer; all
others are `admin_transformer --init-type admin` with our criterion and `admin_fused_adam`. Speeds are
target tokens a second without padding; ratios are medians of the ratios batch by batch, above 1
where ours is faster; memory is the peak of a model's own tensors. CUDA graphs serve batches of one
shape, so all variants of their groups get batches of the most frequent shape; their memory, which
PyTorch does not count as a model's tensors, is left out.
"""

import gc
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from common import clock, interleaved, synchronize

from gpu_check import rates
from gpu_check.breakdown import CLASSES, profiled
from gpu_check.data import data_folder, with_types
from gpu_check.floor import BIG, DEEP, IWSLT, Shape, Work, floor_seconds
from gpu_check.report import described
from gpu_check.stage import Context
from gpu_check.trainers import (
    OPTIMIZER,
    OutOfMemoryError,
    batches,
    build_trainer,
    dropout_options,
    quiet,
    shape_options,
    update,
)

_FAIRSEQ = ["--arch", "transformer"]
_OURS = ["--arch", "admin_transformer", "--init-type", "admin", "--optimizer", "admin_fused_adam"]
STOCK = "fairseq"
#: What is said of a variant for which the memory does not suffice.
FULL = "out of memory"
#: What is compared, in the order of the table; the first is what the ratios refer to.
VARIANTS = {
    STOCK: [*_FAIRSEQ, "--optimizer", "adam"],
    "fairseq, fused Adam": [*_FAIRSEQ, "--optimizer", "admin_fused_adam"],
    "ours": _OURS,
    "ours, fused norm": [*_OURS, "--fused-residual-norm"],
    "RealFormer": [*_OURS, "--residual-attention", "all"],
    "RealFormer, fused norm": [*_OURS, "--residual-attention", "all", "--fused-residual-norm"],
}
_EAGER = tuple(VARIANTS)
#: Compiling takes about a minute, so it comes in a group of its own.
VARIANTS["ours, compiled"] = [*_OURS, "--compile"]
_GRAPHS = ["--cuda-graphs"]
VARIANTS |= {
    "ours, CUDA graphs": [*_OURS, *_GRAPHS],
    "ours, fused norm, CUDA graphs": [*_OURS, "--fused-residual-norm", *_GRAPHS],
    "ours, separate float32 weights, CUDA graphs": [*_OURS, "--fp16-no-flatten-grads", *_GRAPHS],
    "RealFormer, CUDA graphs": [*_OURS, "--residual-attention", "all", *_GRAPHS],
}
_REPLAYED = (STOCK, "ours", *(name for name in VARIANTS if name.endswith("CUDA graphs")))
_BEST = (STOCK, "ours", "ours, CUDA graphs", "ours, fused norm, CUDA graphs")
_SMOKE = (STOCK, "ours", "RealFormer, fused norm")
_COMPILED = (STOCK, "ours", "ours, compiled")
_MAIN = (STOCK, "ours", "ours, fused norm")
_TINY = Shape("2L-1L D=32", 2, 1, 32, 64, 4, 200)


@dataclass(frozen=True)
class Case:
    """One measurement: tokens of a batch, with R-Drop or without, and which variants."""

    tokens: int
    rdrop: bool = False
    variants: tuple[str, ...] = _MAIN


@dataclass(frozen=True)
class Group:
    """Measurements that share their models."""

    shape: Shape
    precision: str
    cases: tuple[Case, ...]
    one_shape: bool = False

    @property
    def name(self) -> str:
        return f"{self.shape.name}, {self.precision}{', one shape' if self.one_shape else ''}"


#: In order of worth: what the time does not allow is left out from the end.
GROUPS = (
    Group(
        DEEP, "bf16",
        (Case(4096, variants=_BEST), Case(4096, True, _BEST), Case(16384, variants=_BEST)),
        one_shape=True,
    ),
    Group(
        IWSLT, "bf16", (Case(4096, variants=_REPLAYED), Case(4096, True, _BEST)), one_shape=True
    ),
    Group(BIG, "bf16", (Case(4096, variants=_BEST), Case(4096, True, _BEST)), one_shape=True),
    Group(
        DEEP, "bf16",
        (Case(4096, variants=_EAGER), Case(4096, True), Case(16384), Case(8192)),
    ),
    Group(IWSLT, "bf16", (Case(4096, variants=_EAGER), Case(4096, True))),
    Group(BIG, "bf16", (Case(4096), Case(4096, True))),
    Group(DEEP, "bf16", (Case(4096, variants=_COMPILED),)),
    Group(IWSLT, "bf16", (Case(4096, variants=_COMPILED),)),
    Group(DEEP, "fp16", (Case(4096), Case(16384))),
    Group(IWSLT, "fp16", (Case(4096),)),
    Group(BIG, "fp16", (Case(4096),)),
)  # fmt: skip
SMOKE_GROUPS = (
    Group(_TINY, "fp32", (Case(300, variants=_SMOKE), Case(300, True, (STOCK, "ours")))),
    Group(_TINY, "fp32", (Case(300, variants=(STOCK, "ours, CUDA graphs")),), one_shape=True),
)


def criterion_options(variant: str, rdrop: bool) -> list[str]:
    """fairseq's criterion for its models, ours for ours."""
    name = "label_smoothed_cross_entropy"
    if variant.startswith(STOCK):
        options = [f"{name}_with_rdrop", "--rdrop-alpha", "5"] if rdrop else [name]
    else:
        options = [f"{name}_rdrop", "--rdrop-alpha", "5"] if rdrop else [f"admin_{name}"]
    return ["--criterion", *options, "--label-smoothing", "0.1"]


def failure_of(error: Exception) -> str:
    """Why a variant is left out, in one line; the traceback goes to the log."""
    if isinstance(error, OutOfMemoryError | torch.OutOfMemoryError):
        return FULL
    traceback.print_exception(error)
    return described(error)


def release(device: str) -> None:
    """Give memory that nothing needs any more back to the device."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


class Models:
    """The trainers of one group, built when they are needed."""

    def __init__(self, context: Context, data: Any, group: Group) -> None:
        self.context, self.data, self.group = context, data, group
        self.trainers: dict[str, Any] = {}
        #: Why a variant has none.
        self.failures: dict[str, str] = {}
        #: Bytes that a model, its gradients and its optimizer hold between updates.
        self.static: dict[str, int] = {}
        self._criterions: dict[str, list[str]] = {}

    def get(self, variant: str, case: Case) -> Any:
        """A trainer with the criterion of `case`; None where it cannot be built, or not make one update."""
        if variant not in self.trainers and variant not in self.failures:
            try:
                self._build(variant, case)
            except Exception as error:
                self.failures[variant] = failure_of(error)
            if variant in self.failures:
                release(self.context.device)
        if variant in self.failures:
            return None
        trainer, criterion = self.trainers[variant], criterion_options(variant, case.rdrop)
        if self._criterions.setdefault(variant, criterion) != criterion:
            self._criterions[variant] = criterion
            set_criterion(trainer, criterion)
        return trainer

    def _build(self, variant: str, case: Case) -> None:
        device = self.context.device
        before = allocated(device)
        options = self._options(variant, case)
        trainer = build_trainer(self.data, device, options, case.tokens, fast=True)
        update(trainer, batches(trainer, min(case.tokens, 1024), 1)[0])
        self.trainers[variant] = trainer
        self.static[variant] = allocated(device) - before

    def _options(self, variant: str, case: Case) -> list[str]:
        options = [*VARIANTS[variant], *criterion_options(variant, case.rdrop), *OPTIMIZER]
        options += [*shape_options(self.group.shape), *dropout_options(0.1)]
        options += ["--num-batch-buckets", "8"] if self.group.one_shape else []
        return options + ([] if self.group.precision == "fp32" else [f"--{self.group.precision}"])


def set_criterion(trainer: Any, options: Sequence[str]) -> None:
    """Let a trainer go on with another criterion."""
    from fairseq import options as fairseq_options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    arguments = [trainer.cfg.task.data, *options, "--arch", "transformer"]
    parser = fairseq_options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, arguments))
    trainer._criterion = trainer.task.build_criterion(cfg.criterion)
    trainer._wrapped_criterion = None


def allocated(device: str) -> int:
    """Bytes of all tensors on the GPU."""
    return torch.cuda.memory_allocated() if device == "cuda" else 0


class Runner:
    """One variant's updates in a measurement, with the peak of its memory."""

    def __init__(self, device: str, trainer: Any, samples: list[Any], static: int) -> None:
        self.device, self.trainer, self.samples, self.static = device, trainer, samples, static
        self.peak = 0
        #: Why its updates have ended.
        self.failure = ""

    def __call__(self, number: int) -> None:
        if self.failure:
            return
        cuda, before = self.device == "cuda", allocated(self.device)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        try:
            update(self.trainer, self.samples[number])
        except Exception as error:
            self.failure = failure_of(error)
        if self.failure:
            self.trainer.zero_grad()
            release(self.device)
            return
        if cuda:
            used = torch.cuda.max_memory_allocated() - before + self.static
            self.peak = max(self.peak, used)


def measure(context: Context, models: Models, case: Case, floors: Callable[[Work], float]) -> None:
    """Rows of one case. A variant that fails has a row with the reason, and fails the stage unless the
    memory was full; the others are measured."""
    one_shape = models.group.one_shape
    about = {
        "model": models.group.name, "tokens": case.tokens,
        "loss": "R-Drop" if case.rdrop else "smoothing",
    }  # fmt: skip
    trainers = {variant: models.get(variant, case) for variant in case.variants}
    trainers = {variant: trainer for variant, trainer in trainers.items() if trainer is not None}
    for variant in case.variants:
        if variant not in trainers:
            left_out(context, models.failures[variant], **about, variant=variant)
    if not trainers:
        return
    some = partial(batches, next(iter(trainers.values())), case.tokens)
    if one_shape:
        rounds, warm_up = (2, 3) if context.smoke else (12, 6)
        samples = some(rounds + warm_up, one_shape)
    else:
        # Each batch comes twice, and the second time counts: kernels of matrix products are chosen
        # by shape and loaded when they are first used, which takes up to seconds.
        rounds = warm_up = 2 if context.smoke else 8
        samples = some(rounds) * 2
    runners = {
        variant: Runner(context.device, trainer, samples, models.static[variant])
        for variant, trainer in trainers.items()
    }
    on_device = partial(clock, context.device)
    times = dict(
        zip(runners, interleaved(list(runners.values()), rounds, warm_up, on_device), strict=True)
    )
    works = [work_of(sample) for sample in samples[warm_up:]]
    passes = 2 if case.rdrop else 1
    floor = median(floors(work.times(passes)) for work in works)
    stock = runners.get(case.variants[0])
    for variant, runner in runners.items():
        if runner.failure:
            left_out(context, runner.failure, **about, variant=variant)
            continue
        seconds = times[variant]
        counted = runner.peak > 0 and not set(_GRAPHS) & set(VARIANTS[variant])
        compared = stock is not None and not stock.failure
        context.report.row(
            "updates", **about, variant=variant,
            **{
                "tokens/s": round(median(w.tokens / s for w, s in zip(works, seconds, strict=True))),
                "ms": 1e3 * median(seconds),
                "ratio": median(
                    a / b for a, b in zip(times[case.variants[0]], seconds, strict=True)
                ) if compared else "",
                "peak GiB": runner.peak / 2**30 if counted else "",
                "memory": runner.peak / stock.peak if counted and compared else "",
                "floor ms": 1e3 * floor, "of floor": floor / median(seconds),
            },
        )  # fmt: skip


def left_out(context: Context, failure: str, **about: Any) -> None:
    """The row of a variant that has failed."""
    if failure != FULL:
        context.report.fail(", ".join(map(str, about.values())))
    context.report.row("updates", **about, note=failure)


def work_of(sample: Any) -> Work:
    """The size of one batch."""
    source, target = sample["net_input"]["src_tokens"], sample["target"]
    return Work(
        source.numel(), target.numel(), source.shape[1], target.shape[1], int(sample["ntokens"])
    )


def profile_steps(context: Context, models: Models, case: Case) -> None:
    """Rows of the table `where the time goes`, in milliseconds."""
    for variant in case.variants:
        if context.seconds_left < 15:
            return
        trainer = models.get(variant, case)
        if trainer is None:
            continue
        about = {"model": models.group.name, "tokens": case.tokens, "variant": variant}
        (sample,) = batches(trainer, case.tokens, 1, models.group.one_shape)
        step = partial(update, trainer, sample)
        try:
            step()
            found = profiled(step, partial(synchronize, context.device), context.device == "cuda")
        except Exception as error:
            context.report.row("where the time goes", **about, note=failure_of(error))
            release(context.device)
            continue
        names = (*CLASSES, "gaps", "all")
        context.report.row(
            "where the time goes", **about,
            **{f"{name} ms": 1e3 * found[name] for name in names}, launches=found["launches"],
        )  # fmt: skip


def floors_of(context: Context, group: Group, found: dict[str, float]) -> Callable[[Work], float]:
    """The floor of this device as a function of the batch; its rates become a row."""
    dtype = {"bf16": "bfloat16", "fp16": "float16"}.get(group.precision, "float32")
    shape, device = group.shape, context.device
    best = found[f"matmul {dtype}"]
    tokens = group.cases[0].tokens
    own = rates.matmul_rate(device, getattr(torch, dtype), tokens, shape.ffn, shape.dim)
    context.report.row(
        "rates", model=group.name, **{
            "TFLOP/s": best / 1e12, "TFLOP/s of its FFN": own / 1e12,
            "copy TB/s": found["copy"] / 1e12, "us a launch": 1e6 * found["launch"],
        },
    )  # fmt: skip
    return lambda work: floor_seconds(shape, work, best, found["copy"])


def run(context: Context) -> None:
    """Tables `rates`, `updates`, `where the time goes`, and `left out` for want of time."""
    quiet()
    # CUDA's profiling interface, taken down after a profile, breaks replays (as PyTorch's own code says).
    os.environ |= {"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"}
    data = data_folder(context)
    found = rates.measure(context.device, context.smoke)
    longest = 2.0 if context.smoke else 30.0
    for group in SMOKE_GROUPS if context.smoke else GROUPS:
        folder = context.output / "speed" / f"types-{group.shape.types}"
        models = Models(context, with_types(data, folder, group.shape.types), group)
        floors: Any = None
        for number, case in enumerate(group.cases):
            loss = "R-Drop" if case.rdrop else "smoothing"
            if context.seconds_left < longest:
                context.report.row("left out", model=group.name, tokens=case.tokens, loss=loss)
                continue
            start = time.monotonic()
            floors = floors or floors_of(context, group, found)
            measure(context, models, case, floors)
            if number == 0:
                profile_steps(context, models, case)
            longest = max(longest, time.monotonic() - start)
        del models  # the last thing that holds them
        release(context.device)
