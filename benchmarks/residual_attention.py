"""Cost of residual attention (RealFormer): one process, interleaved steps on the same batches.

    python benchmarks/residual_attention.py DATA [--shape 6-6-256 ...] [--max-tokens 4000]

Four models with the same sizes, data, criterion and optimizer class train side by side:

    fairseq    fairseq's `transformer`
    plain      `admin_transformer --init-type default`
    residual   the same with `--residual-attention all`
    naive      the same, scores carried by PyTorch's matmul, add, softmax, dropout, matmul

The first table has the medians of whole updates and, as the medians of the ratios batch by batch,
what residual attention costs; the second the peak of all tensors in forward and backward passes,
by depth, and by how many score tensors (B, H, T, S) per attention `residual` is below `naive`.
With one thread, times are of the process alone, so that other programs hardly count.
"""

import argparse
import contextlib
import logging
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch
from common import (
    Shape,
    add_shapes,
    batches,
    build,
    interleaved,
    medians,
    parse,
    shape_name,
    shapes_of,
    show,
)
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import admin_nmt  # noqa: F401
from admin_nmt.ops.dropout import dropout

WARM_UP = 3  # caches are cold
KINDS = ("fairseq", "plain", "residual", "naive")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder made by fairseq-preprocess")
    add_shapes(parser, "6-6-256", "6-6-512", "60-12-64")
    parser.add_argument(
        "--depth", action="append", type=int, help="layers of both stacks for the memory table"
    )
    parser.add_argument("--max-tokens", type=int, default=4000)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    return parse(parser, shape=["1-1-16"], depth=[1], max_tokens=100, batches=2, threads=1)


def options(kind: str) -> list[str]:
    """What makes a model of this kind."""
    criterion = ["--criterion", "label_smoothed_cross_entropy"]
    if kind == "fairseq":
        return [*criterion, "--arch", "transformer"]
    carried = "none" if kind == "plain" else "all"
    ours = ["--arch", "admin_transformer", "--init-type", "default"]
    return [*criterion, *ours, "--residual-attention", carried]


def naive_carry(
    q: Tensor, k: Tensor, v: Tensor, prev: Tensor | None, bias: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Context, scores and weights by PyTorch's operations."""
    scores = torch.matmul(q * options["scale"], k.transpose(-2, -1))
    if prev is not None:
        scores = scores + prev
    divided = scores / options["layers"]
    weights = torch.softmax(divided if bias is None else divided + bias, dim=-1)
    return torch.matmul(dropout(weights, options["dropout_p"]), v), scores, weights


@contextlib.contextmanager
def operation_of(kind: str) -> Iterator[None]:
    """Inside, the naive model has the naive operation."""
    if kind != "naive":
        yield
        return
    name = "admin_nmt.modules.residual_attention.residual_attention"
    with (
        mock.patch(name, lambda *args, **options: naive_carry(*args, **options)[:2]),
        mock.patch(f"{name}_with_weights", naive_carry),
    ):
        yield


def forward_backward(kind: str, model: Any, criterion: Any, batch: Any) -> None:
    """Gradients of one batch."""
    with operation_of(kind):
        loss, sample_size, _ = criterion(model, batch)
        (loss / sample_size).backward()


def measure_time(args: argparse.Namespace, shape: Shape) -> list[Any]:
    """One row: medians in seconds, and medians of the ratios batch by batch."""
    built = {kind: build(args.data, shape, *options(kind)) for kind in KINDS}
    optimizers = {
        kind: torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
        for kind, (_, model, _) in built.items()
    }
    samples = batches(built["plain"][0], args.max_tokens, args.batches + WARM_UP)

    def update(kind: str, number: int) -> None:
        _, model, criterion = built[kind]
        optimizers[kind].zero_grad()
        forward_backward(kind, model.train(), criterion, samples[number])
        optimizers[kind].step()

    runs = [partial(update, kind) for kind in KINDS]
    clock = time.process_time if args.threads == 1 else time.perf_counter
    times = dict(zip(KINDS, interleaved(runs, args.batches, WARM_UP, clock), strict=True))

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))

    return [
        shape_name(shape), *medians(list(times.values())),
        ratio("residual", "plain"), ratio("residual", "fairseq"), ratio("residual", "naive"),
    ]  # fmt: skip


def peak_bytes(kind: str, model: Any, criterion: Any, batch: Any) -> int:
    """Highest sum of all tensors that one forward and backward pass allocates."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        forward_backward(kind, model, criterion, batch)
    events = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    total = peak = 0
    for _, change in sorted(changes):
        total += change
        peak = max(peak, total)
    return peak


def measure_memory(args: argparse.Namespace, depth: int) -> list[Any]:
    """One row: MB, and the gap to the naive carry in score tensors per attention."""
    peaks = {}
    for kind in KINDS:
        task, model, criterion = build(args.data, (depth, depth, 64), *options(kind))
        (batch,) = batches(task, args.max_tokens, 1)
        model.train().zero_grad(set_to_none=False)  # the gradients are there before
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        peaks[kind] = peak_bytes(kind, model, criterion, batch)
    rows, source = batch["net_input"]["src_tokens"].shape
    target = batch["net_input"]["prev_output_tokens"].shape[1]
    all_scores = 4 * 4 * rows * (source * source + target * target + target * source) * depth
    gap = (peaks["naive"] - peaks["residual"]) / all_scores
    return [depth, *(peaks[kind] / 1e6 for kind in KINDS), gap]


def main() -> None:
    """Measure every shape and depth and print two tables."""
    args = parse_arguments()
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    shapes = shapes_of(args)
    note = f"{args.max_tokens} tokens a batch, {args.threads} threads, medians of {args.batches}"
    headers = ["seconds", *KINDS, "residual/plain", "residual/fairseq", "residual/naive"]
    rows = [measure_time(args, shape) for shape in shapes]
    show(args, headers, rows, note=note)
    headers = ["layers, peak MB", *KINDS, "score tensors below naive"]
    rows = [measure_memory(args, depth) for depth in args.depth or (6, 12, 24)]
    show(args, headers, rows, floatfmt=".2f")


if __name__ == "__main__":
    main()
