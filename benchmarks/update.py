"""What an update costs around forward and backward pass in bfloat16: one process, interleaved.

    python benchmarks/update.py DATA [--shape 60-12-64 --shape 6-6-512 ...] [--optimizer radam]

Timed is what fairseq's trainer does from the end of the backward pass: gradients to float32, scaling,
norm and clipping, the optimizer's step, weights back to bfloat16, clearing of gradients. Three ways to
do it over the same parameters: fairseq's own, a float32 copy of each parameter with multi-tensor
operations, and one flat copy (what trainings of `admin_transformer` do). On a CPU the time of a small
model is that of the host's work for each parameter; a GPU waits for it.
"""

import argparse
import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from common import (
    Shape,
    add_cpu_time,
    add_shapes,
    build,
    clock_of,
    configuration,
    interleaved,
    medians,
    parse,
    shape_name,
    shapes_of,
    show,
)

from admin_nmt.host import multi_tensor

#: The first five steps of RAdam are not rectified, and memory is new.
WARM_UP = 6


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder made by fairseq-preprocess")
    add_shapes(parser, "60-12-64", "6-6-512")
    parser.add_argument("--optimizer", default="radam", help="of fairseq-train (default: radam)")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    add_cpu_time(parser)
    return parse(parser, shape=["1-1-16"], updates=2, threads=1)


def updates_of(cfg: Any, parameters: list[Any], served: bool) -> Callable[[int], None]:
    """A function that makes an update of copies of `parameters` with a gradient of their own values."""
    from fairseq.optim.fp16_optimizer import FP16Optimizer

    weights = [copy.deepcopy(p) for p in parameters]
    optimizer = FP16Optimizer.build_optimizer(cfg, weights)
    if served:
        multi_tensor.serve(optimizer)
    gradients = [p.detach().clone() for p in weights]

    def update(number: int) -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimizer._needs_sync = True
        optimizer.multiply_grads(1e-3)
        optimizer.clip_grad_norm(1.0)
        optimizer.step()
        optimizer.zero_grad()
        if weights[0].is_cuda:
            torch.cuda.synchronize()

    return update


def measure(args: argparse.Namespace, shape: Shape) -> list[Any]:
    """One row of the table."""
    options = ("--arch", "admin_transformer", "--init-type", "default", "--bf16")
    options += ("--criterion", "label_smoothed_cross_entropy", "--optimizer", args.optimizer)
    _, model, _ = build(args.data, shape, *options)
    parameters = list(model.to(args.device, torch.bfloat16).parameters())
    flat = configuration(args.data, shape, *options)
    apart = configuration(args.data, shape, *options, "--fp16-no-flatten-grads")
    runs = [
        updates_of(cfg, parameters, served)
        for cfg, served in ((apart, False), (apart, True), (flat, True))
    ]
    clock = clock_of(args)
    found = [1e3 * t for t in medians(interleaved(runs, args.updates, WARM_UP, clock))]
    size = sum(p.numel() for p in parameters)
    return [shape_name(shape), len(parameters), size, *found, found[0] / found[2]]


def main() -> None:
    """Measure every shape and print one table."""
    args = parse_arguments()
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    shapes = shapes_of(args)
    rows = [measure(args, shape) for shape in shapes]
    headers = ["shape", "parameters", "numbers", "fairseq ms", "copies one by one ms"]
    headers += ["one flat copy ms", "ratio"]
    note = f"--optimizer {args.optimizer}, medians of {args.updates} updates"
    show(args, headers, rows, ".1f", note)


if __name__ == "__main__":
    main()
