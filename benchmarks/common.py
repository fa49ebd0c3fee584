"""What the benchmarks share: `--smoke`, `--json`, models by shape, real batches, interleaved timing."""

import argparse
import datetime
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from admin_nmt.installed import machine
from admin_nmt.json_files import write_json

Shape = tuple[int, int, int]


def parse(
    parser: argparse.ArgumentParser, *, tables: bool = True, **smoke: Any
) -> argparse.Namespace:
    """The command line, with `--json` where there are `tables`, and `--smoke`, which replaces the options
    named by `smoke`."""
    if tables:
        parser.add_argument(
            "--json",
            type=Path,
            metavar="FILE",
            help="keep the tables, with command, date and machine",
        )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="see in seconds that the benchmark runs: the smallest sizes, whatever other options "
        "say; its figures mean nothing",
    )
    args = parser.parse_args()
    args.tables = []  # of `show`
    if args.smoke:
        assert vars(args).keys() >= smoke.keys()
        vars(args).update(smoke)
    return args


def show(
    args: argparse.Namespace,
    headers: Sequence[str],
    rows: Sequence[Sequence[Any]],
    floatfmt: str = ".3f",
    note: str = "",
) -> None:
    """Print a table, and add it to the file of `--json`.

    Args:
        args: of `parse`.
        headers: of the columns, all different.
        rows: of the table.
        floatfmt: as printed; the file has all digits.
        note: what was measured, printed above.
    """
    assert len(set(headers)) == len(headers)
    if note:
        print(note)
    print(tabulate(rows, headers=headers, floatfmt=floatfmt), end="\n\n", flush=True)
    if args.json is None:
        return
    args.tables.append({
        "note": note, "rows": [dict(zip(headers, row, strict=True)) for row in rows],
    })  # fmt: skip
    content = {
        "command": shlex.join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": machine(getattr(args, "device", "cpu")),
        "tables": args.tables,
    }
    write_json(args.json, content)


def add_shapes(parser: argparse.ArgumentParser, *default: str) -> None:
    """`--shape`, for `shapes_of`."""
    parser.add_argument(
        "--shape",
        action="append",
        metavar="ENC-DEC-DIM",
        help=f"encoder layers, decoder layers, D; repeatable (default: {' '.join(default)})",
    )
    parser.set_defaults(default_shapes=default)


def shapes_of(args: argparse.Namespace) -> list[Shape]:
    """The shapes of `--shape`, or the default ones."""
    return parse_shapes(args.shape or args.default_shapes)


def add_cpu_time(parser: argparse.ArgumentParser) -> None:
    """`--cpu-time`, for `clock_of`."""
    parser.add_argument(
        "--cpu-time", action="store_true", help="count CPU seconds: for a machine that others use"
    )


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """The clock that `--cpu-time` chooses."""
    return time.process_time if args.cpu_time else time.perf_counter


def synchronize(device: str) -> None:
    """Wait until the device has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def clock(device: str) -> float:
    """Seconds, when the device has done all it was given."""
    synchronize(device)
    return time.perf_counter()


def parse_shapes(texts: Sequence[str]) -> list[Shape]:
    """`ENC-DEC-DIM` -> encoder layers, decoder layers, D."""
    found = []
    for text in texts:
        encoder_layers, decoder_layers, dim = (int(number) for number in text.split("-"))
        found.append((encoder_layers, decoder_layers, dim))
    return found


def shape_name(shape: Shape) -> str:
    """As it stands in tables."""
    return "{}L-{}L D={}".format(*shape)


def configuration(data: str, shape: Shape, *extra: str) -> Any:
    """fairseq's configuration from options of `fairseq-train`: FFN 4 D, 4 heads, dropout 0.1, label
    smoothing 0.1, shared embeddings, Adam; `extra` has `--arch` and `--criterion`."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    encoder_layers, decoder_layers, dim = shape
    args = [
        data, "--cpu", "--share-all-embeddings", "--optimizer", "adam",
        "--encoder-layers", str(encoder_layers), "--decoder-layers", str(decoder_layers),
        "--encoder-embed-dim", str(dim), "--encoder-ffn-embed-dim", str(4 * dim),
        "--encoder-attention-heads", "4", "--decoder-attention-heads", "4",
        "--dropout", "0.1", "--attention-dropout", "0.1", "--activation-dropout", "0.1",
        "--label-smoothing", "0.1", *extra,
    ]  # fmt: skip
    return convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), args)
    )


def build(data: str, shape: Shape, *extra: str) -> tuple[Any, Any, Any]:
    """Task, model and criterion of a `configuration`."""
    from fairseq import tasks

    cfg = configuration(data, shape, *extra)
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    return task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)


def batches(task: Any, max_tokens: int, count: int) -> list[Any]:
    """`count` shuffled training batches; those of a small training set come more than once."""
    task.load_dataset("train")
    iterator = task.get_batch_iterator(task.dataset("train"), max_tokens=max_tokens, seed=1)
    return list(islice(cycle(iterator.next_epoch_itr(shuffle=True)), count))


def interleaved(
    functions: Sequence[Callable[[int], None]],
    rounds: int,
    warm_up: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Seconds of each function in each of `rounds` rounds, in rotating order, after `warm_up`
    rounds that do not count. A function gets the number of the round, to pick its batch."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + warm_up):
        turn = number % len(functions)
        for index in [*range(turn, len(functions)), *range(turn)]:
            start = clock()
            functions[index](number)
            if number >= warm_up:
                times[index].append(clock() - start)
    return times


def medians(times: Sequence[Sequence[float]]) -> list[float]:
    """Median of each."""
    return [statistics.median(values) for values in times]
