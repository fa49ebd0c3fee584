"""What it costs to split the words of the training text anew in every batch.

    python benchmarks/bpe_dropout.py DATA [--bpe-dropout 0.1 | --subword-regularization 0.2] [--shape 6-6-512 ...]

First table: seconds of one core to put a batch together, fairseq's own and with words split anew, by epoch:
what may become of a word is found out in the first. Second table: seconds of a training step of
`admin_transformer` on batches of both kinds (sentences split anew are longer), and the share of the step that
drawing takes, were it not done in a process beside it (`--num-workers 1`, fairseq's default).
"""

import argparse
import logging
import statistics
import time
from typing import Any

import numpy as np
import torch
from common import (
    Shape,
    add_cpu_time,
    add_shapes,
    build,
    clock_of,
    interleaved,
    medians,
    parse,
    shape_name,
    shapes_of,
    show,
)
from train_step import WARM_UP, step

import admin_nmt  # noqa: F401
from admin_nmt.host.resegmented import resegmented
from admin_nmt.optim.radam import RAdam

SEED = 1


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="data-bin of a folder of 'admin-nmt prepare'")
    parser.add_argument("--bpe-dropout", type=float, metavar="P", help="default 0.1")
    parser.add_argument("--subword-regularization", type=float, metavar="ALPHA")
    add_shapes(parser, "3-3-256", "6-6-512")
    parser.add_argument("--max-tokens", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batches", type=int, default=8, help="of the training step")
    parser.add_argument("--threads", type=int, default=2)
    add_cpu_time(parser)
    return parse(
        parser, shape=["1-1-16"], max_tokens=100, epochs=2, batches=2, threads=1, bpe_dropout=0.3
    )


def options(args: argparse.Namespace) -> list[str]:
    """Of `fairseq-train`."""
    if args.subword_regularization is not None:
        return ["--subword-regularization", str(args.subword_regularization)]
    return ["--bpe-dropout", str(0.1 if args.bpe_dropout is None else args.bpe_dropout)]


def measure_collating(
    args: argparse.Namespace, plain: Any, drawn: Any, batches: list[Any]
) -> list[list[float]]:
    """A row for each epoch: number, seconds of a batch without and with, their difference, and how
    many times as many tokens."""
    rows = []
    for epoch in range(1, args.epochs + 1):
        drawn.set_epoch(epoch)
        seconds: list[list[float]] = [[], []]
        tokens = [0, 0]
        order = np.random.default_rng(epoch).permutation(len(batches))
        for batch in (batches[number] for number in order):
            samples = [plain[number] for number in batch]
            for kind, dataset in enumerate((plain, drawn)):
                start = time.process_time()
                sample = dataset.collater(samples)
                seconds[kind].append(time.process_time() - start)
                tokens[kind] += sample["ntokens"] + int(sample["net_input"]["src_lengths"].sum())
        means = [statistics.mean(values) for values in seconds]
        rows.append([epoch, *means, means[1] - means[0], tokens[1] / tokens[0]])
    return rows


def measure_step(
    args: argparse.Namespace, shape: Shape, datasets: tuple[Any, Any], batches: list[Any]
) -> list[float]:
    """Median seconds of a step on batches without and with."""
    extra = ("--arch", "admin_transformer", "--criterion", "admin_label_smoothed_cross_entropy")
    _, model, criterion = build(args.data, shape, *extra)
    optimizer = RAdam(model.parameters(), lr=1e-4, decoupled_weight_decay=True)
    chosen = np.random.default_rng(SEED).choice(len(batches), args.batches + WARM_UP)
    samples = [
        [data.collater([data[number] for number in batches[index]]) for index in chosen]
        for data in datasets
    ]

    def run(kind: int, number: int) -> None:
        step(model, criterion, optimizer, samples[kind][number])

    runs = [lambda number, kind=kind: run(kind, number) for kind in (0, 1)]
    clock = clock_of(args)
    return medians(interleaved(runs, args.batches, WARM_UP, clock))


def main() -> None:
    """Measure and print both tables."""
    args = parse_arguments()
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    shapes = shapes_of(args)
    arch = ("--arch", "admin_transformer", "--criterion", "label_smoothed_cross_entropy")
    task, _, _ = build(args.data, shapes[0], *arch, *options(args))
    task.load_dataset("train")
    plain = task.dataset("train")
    drawn = resegmented(task, plain, SEED)
    batches = plain.batch_by_size(plain.ordered_indices(), max_tokens=args.max_tokens)
    rows = measure_collating(args, plain, drawn, batches)
    note = f"{' '.join(options(args))}, {args.max_tokens} tokens a batch, {len(batches)} batches"
    headers = ["epoch", "without s", "with s", "difference s", "tokens, ratio"]
    show(args, headers, rows, floatfmt=".4f", note=note)
    first, last = rows[0][3], rows[-1][3]
    steps = []
    for shape in shapes:
        without, with_ = measure_step(args, shape, (plain, drawn), batches)
        steps.append([shape_name(shape), without, with_, first / with_, last / with_])
    headers = ["shape", "step without s", "step with s", "drawing, first epoch", "later"]
    note = f"{args.threads} threads, medians of {args.batches}; drawing as a share of the step"
    show(args, headers, steps, note=note)


if __name__ == "__main__":
    main()
