"""Training step of `admin_transformer` against fairseq's `transformer`: one process, interleaved.

    python benchmarks/train_step.py DATA [--shape 6-6-512 --shape 60-12-64 ...] [--max-tokens 4000]

Both models have the same sizes, data, criterion (label-smoothed cross-entropy) and optimizer class;
ours runs `--init-type admin`. Printed are the medians over the batches and their ratio (above 1:
ours is faster), for the whole step and for the optimizer alone (ours: `radam`, fused on the CPU;
stock: `torch.optim.RAdam`).
"""

import argparse
import logging
import time
from typing import Any

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

import admin_nmt  # noqa: F401
from admin_nmt.optim.radam import RAdam

#: The first five steps of RAdam are not rectified, and caches are cold.
WARM_UP = 6


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder made by fairseq-preprocess")
    add_shapes(parser, "6-6-256", "60-12-64")
    parser.add_argument("--max-tokens", type=int, default=4000)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    return parse(parser, shape=["1-1-16"], max_tokens=100, batches=2, threads=1)


def step(model: Any, criterion: Any, optimizer: Any, batch: Any) -> float:
    """One update; returns the seconds of its optimizer step."""
    model.train()
    optimizer.zero_grad()
    loss, sample_size, _ = criterion(model, batch)
    (loss / sample_size).backward()
    before = time.perf_counter()
    optimizer.step()
    return time.perf_counter() - before


def measure(args: argparse.Namespace, shape: Shape) -> list[Any]:
    """One row of the table."""
    stock_criterion = ("--criterion", "label_smoothed_cross_entropy")
    task, ours, criterion = build(args.data, shape, "--arch", "admin_transformer", *stock_criterion)
    _, stock, _ = build(args.data, shape, "--arch", "transformer", *stock_criterion)
    optimizers = (
        RAdam(ours.parameters(), lr=1e-4, decoupled_weight_decay=True),
        torch.optim.RAdam(stock.parameters(), lr=1e-4, decoupled_weight_decay=True),
    )
    samples = batches(task, args.max_tokens, args.batches + WARM_UP)
    alone: list[list[float]] = [[], []]

    def update(index: int, number: int) -> None:
        model = (ours, stock)[index]
        alone[index].append(step(model, criterion, optimizers[index], samples[number]))

    runs = [lambda number, i=index: update(i, number) for index in (0, 1)]
    whole = medians(interleaved(runs, args.batches, WARM_UP))
    steps = medians([seconds[WARM_UP:] for seconds in alone])
    return [shape_name(shape), *whole, whole[1] / whole[0], *steps, steps[1] / steps[0]]


def main() -> None:
    """Measure every shape and print one table."""
    args = parse_arguments()
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    shapes = shapes_of(args)
    rows = [measure(args, shape) for shape in shapes]
    headers = ["shape", "ours s", "fairseq s", "ratio"]
    headers += ["optimizer, ours s", "torch s", "optimizer, ratio"]
    note = f"{args.max_tokens} tokens a batch, {args.threads} threads, medians of {args.batches}"
    show(args, headers, rows, note=note)


if __name__ == "__main__":
    main()
