"""Training step of `admin_transformer` against fairseq's `transformer`: one process, interleaved.

    python benchmarks/train_step.py DATA [--shape 6-6-512 --shape 60-12-64 ...] [--max-tokens 4000]

Both models have the same sizes, data, criterion (label-smoothed cross-entropy) and optimizer class;
ours runs `--init-type admin`. Printed are the medians over the batches and their ratio (above 1:
ours is faster), for the whole step and for the optimizer alone (ours: `radam`, fused on the CPU;
stock: `torch.optim.RAdam`).
"""

import argparse
import logging
import statistics
import time
from typing import Any

import torch
from tabulate import tabulate

import admin_nmt  # noqa: F401
from admin_nmt.optim.radam import RAdam


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder made by fairseq-preprocess")
    parser.add_argument(
        "--shape",
        action="append",
        metavar="ENC-DEC-DIM",
        help="encoder layers, decoder layers, D; repeatable (default 6-6-256 and 60-12-64)",
    )
    parser.add_argument("--max-tokens", type=int, default=4000)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def build(data: str, arch: str, shape: tuple[int, int, int]) -> tuple[Any, Any, Any]:
    """Task, model and criterion from the options of `fairseq-train`."""
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    encoder_layers, decoder_layers, dim = shape
    args = [
        data, "--arch", arch, "--cpu", "--share-all-embeddings",
        "--encoder-layers", str(encoder_layers), "--decoder-layers", str(decoder_layers),
        "--encoder-embed-dim", str(dim), "--encoder-ffn-embed-dim", str(4 * dim),
        "--encoder-attention-heads", "4", "--decoder-attention-heads", "4",
        "--dropout", "0.1", "--attention-dropout", "0.1", "--activation-dropout", "0.1",
        "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1",
    ]  # fmt: skip
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), args)
    )
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    return task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)


def step(model: Any, criterion: Any, optimizer: Any, batch: Any) -> tuple[float, float]:
    """Seconds of one whole update, and of its optimizer step."""
    model.train()
    start = time.perf_counter()
    optimizer.zero_grad()
    loss, sample_size, _ = criterion(model, batch)
    (loss / sample_size).backward()
    before = time.perf_counter()
    optimizer.step()
    end = time.perf_counter()
    return end - start, end - before


def measure(args: argparse.Namespace, shape: tuple[int, int, int]) -> list[Any]:
    """One row of the table."""
    task, ours, criterion = build(args.data, "admin_transformer", shape)
    _, stock, _ = build(args.data, "transformer", shape)
    optimizers = (
        RAdam(ours.parameters(), lr=1e-4, decoupled_weight_decay=True),
        torch.optim.RAdam(stock.parameters(), lr=1e-4, decoupled_weight_decay=True),
    )
    task.load_dataset("train")
    iterator = task.get_batch_iterator(
        task.dataset("train"), max_tokens=args.max_tokens, seed=1
    ).next_epoch_itr(shuffle=True)
    times: list[list[tuple[float, float]]] = [[], []]
    for number in range(args.batches + 6):
        batch = next(iterator)
        for index in (0, 1) if number % 2 else (1, 0):
            seconds = step((ours, stock)[index], criterion, optimizers[index], batch)
            if number >= 6:  # the first five steps of RAdam are not rectified, and caches are cold
                times[index].append(seconds)
    whole = [statistics.median(t for t, _ in side) for side in times]
    alone = [statistics.median(t for _, t in side) for side in times]
    return [
        "{}L-{}L D={}".format(*shape), *whole, whole[1] / whole[0], *alone, alone[1] / alone[0],
    ]  # fmt: skip


def main() -> None:
    """Measure every shape and print one table."""
    args = parse_arguments()
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    shapes = [
        tuple(int(n) for n in text.split("-")) for text in args.shape or ("6-6-256", "60-12-64")
    ]
    rows = [measure(args, shape) for shape in shapes]  # type: ignore[arg-type]
    headers = ["shape", "ours s", "fairseq s", "ratio", "optim s", "fairseq s", "ratio"]
    print(f"{args.max_tokens} tokens a batch, {args.threads} threads, medians of {args.batches}")
    print(tabulate(rows, headers=headers, floatfmt=".3f"))


if __name__ == "__main__":
    main()
