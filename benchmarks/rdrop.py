"""Our criterions against fairseq's: output projection and loss alone, and the whole training step.

    python benchmarks/rdrop.py DATA [--shape 3-3-256 --shape 6-6-512] [--vocabulary 32000]

One process, interleaved, medians; ratios above 1 mean ours is faster. `projection and loss` runs
forward and backward from the decoder's features to the gradients of features and weight, on the
targets of real batches; its peak memory is that of a process of its own, above what it held before.
The training step is that of fairseq's `transformer` with its own criterion against
`admin_transformer` with ours. All models have dropout 0.1; R-Drop's alpha is 5.
"""

import argparse
import logging
import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import (
    Shape,
    add_shapes,
    batches,
    build,
    clock,
    interleaved,
    medians,
    parse,
    shape_name,
    shapes_of,
    show,
)
from torch import Tensor, nn

import admin_nmt  # noqa: F401

STOCK = ("label_smoothed_cross_entropy", "label_smoothed_cross_entropy_with_rdrop")
OURS = ("admin_label_smoothed_cross_entropy", "label_smoothed_cross_entropy_rdrop")
#: MiB.
PAGE = 4 / 1024


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder made by fairseq-preprocess")
    add_shapes(parser, "3-3-256", "6-6-512")
    parser.add_argument(
        "--vocabulary", type=int, action="append", metavar="V",
        help="also measure projection and loss with random targets of V types; repeatable",
    )  # fmt: skip
    parser.add_argument("--max-tokens", type=int, default=4000)
    parser.add_argument("--batches", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--no-steps", action="store_true", help="projection and loss only")
    return parse(parser, shape=["1-1-16"], vocabulary=None, max_tokens=100, batches=2, threads=1)


def criterion_options(name: str) -> list[str]:
    """What selects a criterion."""
    return ["--criterion", name, *(["--rdrop-alpha", "5"] if "rdrop" in name else [])]


def small(data: str, criterion: str) -> tuple[Any, Any, Any]:
    """A task and a criterion; the model does not matter."""
    return build(data, (1, 1, 16), "--arch", "transformer", *criterion_options(criterion))


class OutputOnly(nn.Module):
    """A model that is nothing but a decoder's output projection: features in, logits out."""

    def __init__(self, num_types: int, dim: int) -> None:
        super().__init__()
        self.output_projection = nn.Linear(dim, num_types, bias=False)
        nn.init.normal_(self.output_projection.weight, std=dim**-0.5)

    @property
    def decoder(self) -> "OutputOnly":
        """Where our criterions look for the output layer."""
        return self

    def output_layer(self, features: Tensor) -> Tensor:
        """Logits."""
        return self.output_projection(features)

    def forward(self, src_tokens: Tensor) -> tuple[Tensor, None]:
        """`src_tokens` are features here (fairseq's R-Drop criterion wants an input of that name)."""
        return self.output_layer(src_tokens), None

    def get_normalized_probs(self, output: tuple[Tensor, None], log_probs: bool) -> Tensor:
        """As fairseq's models: in float32."""
        function = torch.log_softmax if log_probs else torch.softmax
        return function(output[0].float(), dim=-1)

    def get_targets(self, sample: Any, output: Any) -> Tensor:
        """The targets."""
        return sample["target"]


def loss_problem(
    data: str,
    max_tokens: int,
    num_batches: int,
    device: str,
    dtype: str,
    dim: int,
    num_types: int | None,
) -> tuple[Any, list]:
    """The stub model and samples whose input is random features."""
    task, _, _ = small(data, STOCK[0])
    samples = []
    generator = torch.Generator().manual_seed(0)
    types = num_types or len(task.target_dictionary)
    for batch in batches(task, max_tokens, num_batches):
        target = batch["target"]
        if num_types:
            random = torch.randint(4, num_types, target.shape, generator=generator)
            target = torch.where(target == task.target_dictionary.pad(), target, random)
        features = torch.randn((*target.shape, dim), generator=generator)
        features = features.to(device, getattr(torch, dtype)).requires_grad_()
        samples.append(
            {"target": target.to(device), "ntokens": batch["ntokens"],
             "net_input": {"src_tokens": features}}
        )  # fmt: skip
    model = OutputOnly(types, dim).to(device, getattr(torch, dtype)).train()
    return model, samples


def loss_step(criterion: Any, model: Any, sample: Any) -> None:
    """Forward and backward of projection and loss."""
    features = sample["net_input"]["src_tokens"]
    model.zero_grad(set_to_none=True)
    features.grad = None
    # fairseq's R-Drop criterion replaces the input by its double.
    loss, _, _ = criterion(model, {**sample, "net_input": dict(sample["net_input"])})
    loss.backward()


def peak_memory(
    args: argparse.Namespace, criterions: list[str], dim: int, num_types: int | None
) -> list[float]:
    """Peak MiB of one step of each criterion above the start, each in a process of its own.

    The processes are forked from one that has done nothing but import.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fairseq.tasks.translation", "admin_nmt", "common"])
    measure = partial(own_peak, args, dim, num_types)
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        return list(pool.map(measure, criterions))


def own_peak(args: argparse.Namespace, dim: int, num_types: int | None, criterion: str) -> float:
    """The peak of this process during one step above the memory held before, MiB."""
    be_quiet(args)
    model, samples = loss_problem(
        args.data, args.max_tokens, 1, args.device, args.dtype, dim, num_types
    )
    _, _, made = small(args.data, criterion)
    if args.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss_step(made, model, samples[0])
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Start the libraries' own buffers with a batch of one sentence.
    few = {**samples[0], "target": samples[0]["target"][:1], "ntokens": 1}
    features = samples[0]["net_input"]["src_tokens"]
    loss_step(made, model, {**few, "net_input": {"src_tokens": features.detach()[:1]}})
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status_kib("VmRSS")
    loss_step(made, model, samples[0])
    return (status_kib("VmHWM") - before) / 1024


def status_kib(name: str) -> int:
    """A line of /proc/self/status, KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def measure_losses(args: argparse.Namespace, dim: int, num_types: int | None) -> list[list[Any]]:
    """Rows without and with R-Drop."""
    model, samples = loss_problem(
        args.data, args.max_tokens, args.batches, args.device, args.dtype, dim, num_types
    )
    names = [STOCK[0], OURS[0], STOCK[1], OURS[1]]
    criterions = [small(args.data, name)[2] for name in names]
    steps = [
        lambda number, c=criterion: loss_step(c, model, samples[number % len(samples)])
        for criterion in criterions
    ]
    seconds = medians(interleaved(steps, args.batches, 2, partial(clock, args.device)))
    memory = peak_memory(args, names, dim, num_types)
    types = model.output_projection.out_features
    rows = []
    for kind, first in (("label smoothing", 0), ("R-Drop", 2)):
        row = [dim, types, kind, seconds[first], seconds[first + 1]]
        row += [seconds[first] / seconds[first + 1], memory[first], memory[first + 1]]
        # A small loss fits in what the process has already: below a page nothing is measured.
        rows.append([*row, memory[first] / max(memory[first + 1], PAGE)])
    return rows


def measure_steps(args: argparse.Namespace, shape: Shape) -> list[list[Any]]:
    """Rows of the whole training step without and with R-Drop."""
    from fairseq.utils import apply_to_sample

    from admin_nmt.optim.radam import RAdam

    task, _, _ = small(args.data, STOCK[0])
    samples = apply_to_sample(
        lambda tensor: tensor.to(args.device), batches(task, args.max_tokens, args.batches)
    )
    rows = []
    for kind, stock, ours in zip(("label smoothing", "R-Drop"), STOCK, OURS, strict=True):
        steps = []
        for arch, name in (
            ("transformer", stock),
            ("transformer", ours),
            ("admin_transformer", ours),
        ):
            _, model, criterion = build(args.data, shape, "--arch", arch, *criterion_options(name))
            model = model.to(args.device, getattr(torch, args.dtype))
            own = arch == "admin_transformer"
            optimizer = (RAdam if own else torch.optim.RAdam)(
                model.parameters(), lr=1e-4, decoupled_weight_decay=True
            )
            steps.append(training_step(model.train(), criterion, optimizer, samples))
        seconds = medians(interleaved(steps, args.batches, 2, partial(clock, args.device)))
        rows.append(
            [shape_name(shape), kind, *seconds, seconds[0] / seconds[1],
             seconds[0] / seconds[2]]
        )  # fmt: skip
    return rows


def training_step(model: Any, criterion: Any, optimizer: Any, samples: list) -> Callable:
    """One update as a function of the round."""

    def step(number: int) -> None:
        sample = samples[number % len(samples)]
        optimizer.zero_grad()
        loss, sample_size, _ = criterion(model, {**sample, "net_input": dict(sample["net_input"])})
        (loss / sample_size).backward()
        optimizer.step()

    return step


def be_quiet(args: argparse.Namespace) -> None:
    """Every process: no messages but ours, and as many threads as asked for."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)


def main() -> None:
    """Measure and print two tables."""
    args = parse_arguments()
    be_quiet(args)
    shapes = shapes_of(args)
    note = f"{args.max_tokens} tokens a batch, {args.threads} threads, medians of {args.batches}"
    rows = [
        row
        for shape in shapes
        for num_types in (None, *(args.vocabulary or ()))
        for row in measure_losses(args, shape[2], num_types)
    ]
    headers = [
        "D",
        "V",
        "projection and loss",
        "fairseq s",
        "ours s",
        "ratio",
        "fairseq MiB",
        "ours MiB",
        "ratio of MiB",
    ]
    show(args, headers, rows, note=note)
    if not args.no_steps:
        rows = [row for shape in shapes for row in measure_steps(args, shape)]
        headers = ["shape", "training step", "fairseq s", "our loss s", "all ours s"]
        headers += ["ratio, our loss", "ratio, all ours"]
        show(args, headers, rows)


if __name__ == "__main__":
    main()
