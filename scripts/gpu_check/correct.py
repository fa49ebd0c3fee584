"""Stage `correct`: kernels against float64, training against the CPU, and options.

`kernels` calls the operations as the model does, so that on a GPU the Triton kernels run wherever
they serve. Memory that they are to fill holds NaN before. Errors are norms of differences over norms
of what is expected, the worst of values and gradients; the bounds are a few roundings of the type.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.host import graphs
from admin_nmt.ops.label_smoothing import LabelSmoothing
from admin_nmt.ops.linear_loss import linear_rdrop
from admin_nmt.ops.rdrop import rdrop_loss
from admin_nmt.ops.residual_attention import residual_attention
from admin_nmt.ops.residual_norm import residual_norm
from gpu_check.data import data_folder
from gpu_check.floor import Shape
from gpu_check.report import described
from gpu_check.stage import Context

Gradients = tuple[str, Tensor]
DTYPES = (torch.bfloat16, torch.float32, torch.float16)
#: Largest relative error by type. Products on tensor cores round their operands to these types;
#: a chain of three attentions rounds more often than one loss.
BOUNDS = {torch.float32: 2e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}
_SMALL = Shape("", 2, 2, 64, 128, 4, 0)


@contextmanager
def poisoned() -> Iterator[None]:
    """New memory of floating-point numbers holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield  # `torch.utils.deterministic.fill_uninitialized_memory` is on by default
    finally:
        torch.use_deterministic_algorithms(before)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm; NaN stays NaN."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((found - expected).norm() / expected.norm().clamp_min(1e-6))


def compare(
    operation: Callable[..., Sequence[Tensor]],
    twin: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor],
    device: str,
) -> float:
    """Worst error of `operation` on `device` against `twin` in float64, values and all gradients.

    Args:
        operation: takes the inputs, returns results.
        twin: the same in plain PyTorch.
        inputs: leaves on the CPU in the type to be checked; the twin gets them widened.
        device: where the operation runs.
    """
    found: list[list[Tensor]] = []
    upstream: list[Tensor] = []
    for function, place, dtype in ((twin, "cpu", torch.float64), (operation, device, None)):
        leaves = [x.to(place, dtype or x.dtype, copy=True).requires_grad_() for x in inputs]
        with poisoned():
            outputs = [out for out in function(*leaves) if out.requires_grad]
            if not upstream:
                generator = torch.Generator().manual_seed(1)
                upstream = [
                    1 + torch.rand(out.shape, generator=generator, dtype=torch.float64)
                    for out in outputs
                ]
            arriving = [u.to(out) for u, out in zip(upstream, outputs, strict=True)]
            gradients = torch.autograd.grad(outputs, leaves, arriving)
        found.append([*outputs, *gradients])
    return max(relative_error(ours, exact) for exact, ours in zip(*found, strict=True))


def loss_problem(passes: int, tokens: int, dim: int, types: int, chunk: int | None) -> tuple:
    """Output projection and loss: label smoothing for one pass, R-Drop (alpha 5) for more."""
    generator = torch.Generator().manual_seed(tokens)
    features = torch.randn(passes, tokens, dim, generator=generator)
    weight = 2 * torch.randn(types, dim, generator=generator) / dim**0.5
    target = torch.randint(0, types, (tokens,), generator=generator)
    target[:: max(tokens // 5, 2)] = 1  # padding
    smoothing, alpha = LabelSmoothing.of(0.1, types), 5.0 if passes > 1 else 0.0

    placed = cache(target.to)  # once: a copy from the host would make it wait

    def operation(features: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        own = placed(features.device)
        return [
            linear_rdrop(features, weight, bias, own, smoothing, alpha, 1, chunk_tokens=chunk).loss
        ]

    def twin(features: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
        lprobs = torch.log_softmax(features @ weight.T + bias, dim=-1)
        return [rdrop_loss(lprobs, target, smoothing, alpha, 1).loss]

    return operation, twin, [features, weight, torch.randn(types, generator=generator) / 4]


def attention_problem(
    batch: int, heads: int, length: int, keys: int, size: int, mask: str
) -> tuple:
    """Residual attention over three layers that share keys and values."""
    generator = torch.Generator().manual_seed(length)
    bias: Tensor | None = None
    if mask == "causal":
        bias = torch.full((length, keys), float("-inf")).triu_(1)
    elif mask == "padding":
        hidden = torch.arange(keys) >= keys - torch.arange(batch)[:, None] % keys
        bias = torch.zeros(batch, 1, 1, keys).masked_fill_(hidden[:, None, None], float("-inf"))

    placed = None if bias is None else cache(bias.to)

    def operation(k: Tensor, v: Tensor, *queries: Tensor) -> list[Tensor]:
        scores, outputs = None, []
        own = None if placed is None else placed(k.device, k.dtype)
        for number, q in enumerate(queries, 1):
            out, scores = residual_attention(
                q, k, v, scores, own, scale=size**-0.5, layers=number, in_place=False
            )
            outputs.append(out)
        return [*outputs, scores]

    def twin(k: Tensor, v: Tensor, *queries: Tensor) -> list[Tensor]:
        total: Any = 0.0
        outputs = []
        for number, q in enumerate(queries, 1):
            total = total + q @ k.mT * size**-0.5
            weights = torch.softmax(total / number + (0.0 if bias is None else bias), dim=-1)
            outputs.append(weights @ v)
        return [*outputs, total]

    shapes = [(batch, heads, keys, size)] * 2 + [(batch, heads, length, size)] * 3
    return operation, twin, [torch.randn(shape, generator=generator) for shape in shapes]


def norm_problem(rows: tuple[int, ...], dim: int, kind: str) -> tuple:
    """Residual connection and LayerNorm: with omega or a constant."""
    generator = torch.Generator().manual_seed(dim)
    shapes = [(*rows, dim), (*rows, dim), *[(dim,)] * (3 if kind == "omega" else 2)]

    def apply(function: Callable, branch: Tensor, shortcut: Tensor, *vectors: Tensor) -> Any:
        *omega, weight, bias = vectors
        factor = omega[0] if omega else 2.5
        return [function(branch, shortcut, factor, weight, bias, 1e-5)]

    def twin(
        branch: Tensor, shortcut: Tensor, factor: Any, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        total = factor * shortcut + branch
        centred = total - total.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias

    inputs = [torch.randn(s, generator=generator) + (len(s) == 1) for s in shapes]
    return partial(apply, residual_norm), partial(apply, twin), inputs


def kernel_cases(smoke: bool) -> Iterator[tuple[str, str, tuple]]:
    """Operation, description, problem; sizes are odd, and larger than one tile but for `smoke`."""
    losses = [(1, 37, 24, 301, 16), (2, 21, 16, 103, 7), (3, 5, 16, 50, None)]
    attentions = [(2, 3, 5, 5, 16, "causal"), (3, 2, 7, 9, 8, "padding")]
    norms = [((3, 7), 33, "omega"), ((4,), 64, "constant")]
    if not smoke:
        losses += [(1, 1001, 512, 10153, None), (2, 513, 512, 32001, 200)]
        attentions += [
            (2, 4, 70, 90, 64, "padding"), (2, 2, 130, 130, 128, "causal"), (8, 8, 33, 17, 64, "none"),
        ]  # fmt: skip
        norms += [
            ((67, 13), 512, "omega"), ((257,), 1024, "constant"), ((9,), 5000, "omega"),
        ]  # fmt: skip
    for case in losses:
        name = "linear_loss" if case[0] == 1 else "rdrop"
        text = "{} passes, {} tokens, D {}, V {}, chunks of {}".format(*case)
        yield name, text, loss_problem(*case)
    for shape in attentions:
        text = "B {}, H {}, T {}, S {}, K {}, {}".format(*shape)
        yield "residual_attention", text, attention_problem(*shape)
    for rows, dim, kind in norms:
        yield "residual_norm", f"rows {rows}, D {dim}, {kind}", norm_problem(rows, dim, kind)


def attempt(
    context: Context, table: str, what: str, step: Callable[[], tuple], reserve: float = 0
) -> None:
    """One check: `step` returns an error and its bound. An exception is a failed check.

    Args:
        reserve: seconds that it must leave on a GPU for what follows; else it is left out.
    """
    if context.device == "cuda" and context.seconds_left < reserve:
        context.report.row("left out", check=what)
        return
    try:
        error, bound = step()
        passed, note = error <= bound, ""
    except Exception as problem:
        error, bound, passed = "", "", False
        note = described(problem)
    context.report.check(table, what, passed, error=error, bound=bound, note=note)


def check_kernels(context: Context) -> None:
    """Every operation against float64, in every type, for at most half of the time: each case
    compiles kernels."""
    half = context.seconds_left / 2
    for dtype in DTYPES:
        for name, text, (operation, twin, inputs) in kernel_cases(context.smoke):
            what = f"{name} {str(dtype)[6:]} {text}"
            if context.seconds_left < half:
                context.report.row("left out", check=what)
                continue
            rounded = [x.to(dtype) for x in inputs]
            attempt(context, "kernels", what, partial(_checked, operation, twin, rounded, context))


def _checked(
    operation: Callable, twin: Callable, inputs: Sequence[Tensor], context: Context
) -> tuple[float, float]:
    return compare(operation, twin, inputs, context.device), BOUNDS[inputs[0].dtype]


def check_waiting(context: Context) -> None:
    """No operation makes the host wait for the GPU, forward or backward."""

    def once(operation: Callable, inputs: Sequence[Tensor]) -> None:
        leaves = [x.detach().requires_grad_() for x in inputs]
        outputs = [out for out in operation(*leaves) if out.requires_grad]
        torch.autograd.grad(outputs, leaves, [torch.ones_like(out) for out in outputs])

    def step(operation: Callable, inputs: Sequence[Tensor]) -> tuple[float, float]:
        once(operation, inputs)  # compiles
        if context.device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            once(operation, inputs)
        finally:
            if context.device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        return 0.0, 0.0

    seen: set[str] = set()
    for name, _, (operation, _, inputs) in kernel_cases(smoke=True):
        if name not in seen:
            seen.add(name)
            rounded = [x.to(context.device, torch.bfloat16) for x in inputs]
            attempt(context, "waiting", f"{name} does not wait", partial(step, operation, rounded))


#: What trains here, and its options.
TRAININGS = {
    "fairseq": ["--arch", "transformer", "--criterion", "label_smoothed_cross_entropy"],
    "ADMIN": ["--init-type", "admin"],
    "ADMIN, fused norm": ["--init-type", "admin", "--fused-residual-norm"],
    "RealFormer": ["--init-type", "admin", "--residual-attention", "all"],
    "R-Drop": ["--criterion", "label_smoothed_cross_entropy_rdrop"],
}


def training_losses(
    context: Context, name: str, device: str, extra: Sequence[str], count: int
) -> list[float]:
    """Losses per token of `count` updates of a small model without dropout."""
    return training(context, name, device, extra, count)[1]


def training(
    context: Context,
    name: str,
    device: str,
    extra: Sequence[str],
    count: int,
    dropout: float = 0.0,
    one_shape: bool = False,
    repeated: bool = False,
) -> tuple[Any, list[float]]:
    """The trainer of a small model after `count` updates and their losses per token, `one_shape` as
    of `batches`; on one batch if `repeated`."""
    from gpu_check.trainers import (
        OPTIMIZER,
        batches,
        build_trainer,
        dropout_options,
        losses,
        shape_options,
    )

    options = ["--arch", "admin_transformer", *TRAININGS[name]]
    if "--criterion" not in options:
        options += ["--criterion", "admin_label_smoothed_cross_entropy"]
    if name == "fairseq":
        options = TRAININGS[name]
    options = [*options, *OPTIMIZER, "--optimizer", "adam" if name == "fairseq" else "radam"]
    options += [*shape_options(_SMALL), *dropout_options(dropout), "--lr", "1e-3", *extra]
    max_tokens = 300 if context.smoke else 1000
    trainer = build_trainer(
        data_folder(context), device, [*options, "--label-smoothing", "0.1"], max_tokens
    )
    samples = batches(trainer, max_tokens, 1 if repeated else count, one_shape)
    return trainer, losses(trainer, samples * (count // len(samples)))


def check_trainings(context: Context, reserve: float) -> None:
    """Float32 on this device against float32 on the CPU, without dropout: the same losses.

    Sums in another order differ by 1e-7 each, and 20 updates at a learning rate of 1e-3 make the
    most of it.
    """
    count = 3 if context.smoke else 20
    names = ["ADMIN, fused norm", "RealFormer"] if context.smoke else list(TRAININGS)
    for name in names:

        def step(name: str = name) -> tuple[float, float]:
            cpu = training_losses(context, name, "cpu", [], count)
            own = training_losses(context, name, context.device, [], count)
            return max(abs(a / b - 1) for a, b in zip(own, cpu, strict=True)), 1e-3

        what = f"{name}: {count} updates in float32, against the CPU"
        attempt(context, "trainings", what, step, reserve)


def check_precisions(context: Context, reserve: float) -> None:
    """The other types train: their losses stay near those of float32 on the same device."""
    count = 3 if context.smoke else 10
    precisions = ["fp16"] if context.smoke else ["bf16", "fp16", "memory-efficient-fp16", "amp"]
    if context.device == "cpu" and not context.smoke:
        precisions.remove("amp")  # fairseq's is CUDA's
    names = ["ADMIN"] if context.smoke else ["ADMIN, fused norm", "RealFormer"]
    exact = cache(lambda name: training_losses(context, name, context.device, [], count))

    def step(name: str, precision: str) -> tuple[float, float]:
        # A loss scale that the first updates need not lower: all of them count.
        extra = [f"--{precision}", *([] if precision == "bf16" else ["--fp16-init-scale", "4"])]
        own = training_losses(context, name, context.device, extra, count)
        return max(abs(a / b - 1) for a, b in zip(own, exact(name), strict=True)), 0.03

    for name in names:
        for precision in precisions:
            what = f"{name}, {precision}: {count} updates, against float32"
            attempt(context, "precisions", what, partial(step, name, precision), reserve)


def check_graphs(context: Context, reserve: float) -> None:
    """`--cuda-graphs`: the losses are those of plain steps, and dropout is drawn in each replay."""
    count = 5 if context.smoke else 10
    buckets = ["--num-batch-buckets", "4"]
    precisions = {"bf16": 0.03} if context.smoke else {"fp32": 1e-3, "bf16": 0.03, "fp16": 0.03}
    names = (
        ["RealFormer"] if context.smoke else ["ADMIN", "ADMIN, fused norm", "RealFormer", "R-Drop"]
    )

    def losses_of(name: str, *extra: str, **more: Any) -> list[float]:
        options = [*buckets, *extra]
        trainer, found = training(
            context, name, context.device, options, count, one_shape=True, **more
        )
        if "--cuda-graphs" in extra and graphs.installed(trainer).replays < count // 2:
            raise RuntimeError("too few updates were replayed")
        return found

    def step(name: str, precision: str, bound: float) -> tuple[float, float]:
        extra = [f"--{precision}"] if precision != "fp32" else []
        extra += ["--fp16-init-scale", "4"] if precision == "fp16" else []
        plain, own = losses_of(name, *extra), losses_of(name, *extra, "--cuda-graphs")
        return max(abs(a / b - 1) for a, b in zip(own, plain, strict=True)), bound

    def drawn(name: str) -> tuple[float, float]:
        found = losses_of(name, "--lr", "0", "--cuda-graphs", dropout=0.3, repeated=True)
        return float(count - len(set(found))), 0.0

    for name in names:
        for precision, bound in precisions.items():
            what = f"{name}, {precision}: {count} updates, against plain steps"
            attempt(context, "graphs", what, partial(step, name, precision, bound), reserve)
        what = f"{name}: losses that come twice"
        attempt(context, "graphs", what, partial(drawn, name), reserve)


@torch.no_grad()
def decoding_error(context: Context, name: str) -> float:
    """Worst error of logits computed word by word against those of whole sentences."""
    from gpu_check.trainers import OPTIMIZER, batches, build_trainer, dropout_options, shape_options

    options = ["--arch", "admin_transformer", *TRAININGS[name], *OPTIMIZER, "--optimizer", "radam"]
    options += ["--criterion", "admin_label_smoothed_cross_entropy"]
    options += [*shape_options(_SMALL), *dropout_options(0.1)]
    trainer = build_trainer(data_folder(context), context.device, options, 300)
    model = trainer.get_model().eval()
    (sample,) = batches(trainer, 300, 1)
    inputs = trainer._prepare_sample(sample)[0]["net_input"]
    encoded = model.encoder(inputs["src_tokens"], src_lengths=inputs["src_lengths"])
    previous = inputs["prev_output_tokens"]
    whole, _ = model.decoder(previous, encoder_out=encoded)
    real = previous.ne(model.decoder.padding_idx)
    state: dict[str, Any] = {}
    worst = 0.0
    for length in range(1, previous.shape[1] + 1):
        step, _ = model.decoder(previous[:, :length], encoder_out=encoded, incremental_state=state)
        rows = real[:, length - 1]
        worst = max(worst, relative_error(step[rows, -1], whole[rows, length - 1]))
    return worst


def check_decoding(context: Context) -> None:
    """Incremental decoding computes what the whole decoder computes."""
    for name in ("ADMIN, fused norm", "RealFormer"):
        attempt(
            context, "decoding", f"{name}: word by word against whole sentences",
            lambda name=name: (decoding_error(context, name), 1e-4),
        )  # fmt: skip


def check_compiled(context: Context) -> None:
    """`--compile`: the losses are those of eager layers. One row may take a minute."""
    count = 10

    def step(name: str, extra: Sequence[str], bound: float) -> tuple[float, float]:
        eager = training_losses(context, name, context.device, extra, count)
        own = training_losses(context, name, context.device, [*extra, "--compile"], count)
        return max(abs(a / b - 1) for a, b in zip(own, eager, strict=True)), bound

    for name, precision, bound in (("ADMIN", "fp32", 1e-3), ("R-Drop", "bf16", 0.03)):
        what = f"{name}, {precision}: {count} updates with --compile, against eager layers"
        if context.device != "cuda" or context.seconds_left < 60:
            context.report.row("left out", check=what)
            continue
        extra = [f"--{precision}"] if precision != "fp32" else []
        attempt(context, "compiled", what, partial(step, name, extra, bound))


def check_tests(context: Context) -> None:
    """The kernels' own tests on the GPU, where pytest is installed; with what time is left."""
    if context.device != "cuda" or context.seconds_left < 20:
        return
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["--device", "cuda", str(root / "tests" / "ops" / "triton")]
    # Not `--timeout 0`, which pytest refuses where pytest-timeout is missing.
    environment = os.environ | {"PYTEST_TIMEOUT": "0"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=root, env=environment,
            timeout=context.seconds_left - 5,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        context.report.row("tests", check="tests/ops/triton", ok="", note="not finished in time")
        return
    text = (result.stdout + result.stderr).strip()
    if "No module named pytest" in text:
        context.report.row("tests", check="tests/ops/triton", ok="", note="pytest is missing")
        return
    failed = re.search(r"^(FAILED|ERROR) .*", text, re.MULTILINE)
    note = failed[0][:160] if failed else text.splitlines()[-1][:160]
    context.report.check("tests", "tests/ops/triton", result.returncode == 0, note=note)


def run(context: Context) -> None:
    """Tables `kernels`, `waiting`, `trainings`, `precisions`, `graphs`, `decoding`, `compiled`,
    `tests`, and `left out` for want of time."""
    torch.backends.cuda.matmul.allow_tf32 = False
    total = context.seconds_left
    check_kernels(context)
    check_waiting(context)
    from gpu_check.trainers import quiet

    quiet()
    check_trainings(context, total / 4)
    check_precisions(context, total / 4)
    check_decoding(context)
    check_compiled(context)
    check_graphs(context, total / 10)
    check_tests(context)
