"""kill -9 at random moments: do weights and optimizer end bit for bit as without the kills?

    python benchmarks/random_kills.py DATA [--kills 100] [--kills-per-run 4] [--seed 1] [--output FILE.json]

DATA is a small data-bin (some hundred sentences, so that a run lasts several epochs). Each run draws
its options at random: criterion, residual scheme, attention, precision, batches, data, workers,
checkpoints. The run is made once without interruption. Then it is started, killed after a time drawn
evenly from the first 60 % of the length of the whole, and started again with the same command, until it
ends; after `--kills-per-run` kills it is left alone, so that no run takes all of them.

Training processes are forks of this one, which has imported fairseq and nothing else; from there on
each is `fairseq-train` with its command line.
"""

import argparse
import datetime
import os
import platform
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from common import parse, show
from fairseq_cli.train import cli_main
from tqdm import tqdm

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.json_files import write_json

COMMON = (
    "--arch admin_transformer_tiny --cpu --share-all-embeddings --max-tokens 300 --optimizer radam "
    "--lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 10 --dropout 0.1 --log-format json "
    "--log-interval 1 --save-interval-updates 7"
).split()
#: What is drawn: one value of each. `{second}` is a second shard of training data.
CHOICES = {
    "criterion": (
        "--criterion admin_label_smoothed_cross_entropy --label-smoothing 0.1",
        "--criterion label_smoothed_cross_entropy --label-smoothing 0.1",
        "--criterion label_smoothed_cross_entropy_rdrop --label-smoothing 0.1",
        "--criterion label_smoothed_cross_entropy_rdrop --rdrop-interval 3",
        "--criterion cross_entropy",
    ),
    "residual": tuple(
        f"--init-type {name}" for name in ("admin", "admin-log", "deepnorm", "rezero", "default")
    ),
    "attention": ("", "--residual-attention all"),
    "precision": ("", "", "--bf16", "--fp16 --fp16-init-scale 4 --fp16-scale-window 5"),
    "batches": (
        "",
        "--update-freq 2",
        "--num-batch-buckets 2",
        "--curriculum 2",
        "--update-epoch-batch-itr True",
    ),
    "data": ("", "", "{second}"),
    "workers": tuple(f"--num-workers {number}" for number in (0, 1, 2)),
    "checkpoints": (
        "--no-epoch-checkpoints --keep-interval-updates 1 --disable-validation",
        "--keep-last-epochs 2 --keep-interval-updates 2",
        "--keep-best-checkpoints 2 --keep-interval-updates 1 --no-epoch-checkpoints",
    ),
}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", type=Path, help="folder made by fairseq-preprocess")
    parser.add_argument("--kills", type=int, default=100, help="kills altogether (default: 100)")
    parser.add_argument("--kills-per-run", type=int, default=4, help="at the most (default: 4)")
    parser.add_argument("--updates", type=int, default=40, help="length of a run (default: 40)")
    parser.add_argument("--seed", type=int, default=1, help="of options and moments (default: 1)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the results as JSON")
    return parse(parser, kills=2, updates=9)


def drawn_options(rng: random.Random) -> Iterator[list[str]]:
    """Options of one run after the other. Each value of a choice comes up once before any comes up
    again, so that a few runs see all of them."""
    decks: dict[str, list[str]] = {name: [] for name in CHOICES}
    while True:
        for name, deck in decks.items():
            if not deck:
                deck += CHOICES[name]
                rng.shuffle(deck)
        yield [option for deck in decks.values() for option in deck.pop().split()]


def second_shard(data: Path, folder: Path) -> Path:
    """A copy of DATA whose training set is the test set."""
    shutil.copytree(data, folder)
    for path in data.glob("test.*"):
        shutil.copy(path, folder / path.name.replace("test.", "train.", 1))
    return folder


def start(command: Sequence[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Start `fairseq-train` with the words of `command`, after `prepare`; its process number. Output
    goes to `log`."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        with log.open("ab") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        sys.argv = [*command]
        prepare()
        cli_main()
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(process: int, seconds: float) -> int | None:
    """Wait for a process for so long; its exit status, or None if it still runs."""
    deadline = time.monotonic() + seconds
    while True:
        number, status = os.waitpid(process, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)


def require_success(status: int | None, log: Path) -> None:
    """Stop with the end of the log where a run failed, or hung for ten minutes."""
    if status != 0:
        raise SystemExit(f"a run ended with {status}:\n{log.read_text()[-3000:]}")


def killed_run(
    command: Sequence[str], folder: Path, seconds: float, most: int, rng: random.Random
) -> list[dict[str, Any]]:
    """Start, kill and start again until the run ends; what each kill met.

    Args:
        seconds: of the uninterrupted run.
        most: kills, after which the run is left alone.
    """
    kills: list[dict[str, Any]] = []
    log = folder.with_suffix(".log")
    while True:
        before = unfinished(folder)
        process = start(command, log)
        moment = rng.uniform(0, 0.6 * seconds) if len(kills) < most else 600
        status = ended(process, moment)
        if status is not None:
            require_success(status, log)
            return kills
        if len(kills) == most:
            os.kill(process, signal.SIGKILL)
            require_success(None, log)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        kills.append(
            {
                "after_seconds": round(moment, 2),
                "updates_in_checkpoint": updates_in(folder / "checkpoint_last.pt"),
                "while_writing": bool(unfinished(folder) - before),
            }
        )


def unfinished(folder: Path) -> set[tuple[str, int]]:
    """Names and times of the files that were being written in a folder, now or when a process was killed:
    such a file stays until one of its name is written again."""
    return {(path.name, path.stat().st_mtime_ns) for path in folder.glob("*.tmp")}


def updates_in(checkpoint: Path) -> int:
    """Updates after which a checkpoint was written; 0 where there is none."""
    if not checkpoint.exists():
        return 0
    return load_checkpoint_file(checkpoint)["optimizer_history"][-1]["num_updates"]


def differences(first: Any, second: Any, name: str = "") -> list[str]:
    """Where two nested containers of tensors and numbers are not the same bit for bit."""
    if torch.is_tensor(first) and torch.is_tensor(second):
        same = first.dtype == second.dtype and first.shape == second.shape
        return [] if same and torch.equal(first, second) else [name]
    if type(first) is not type(second):
        return [name]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [name]
        return [
            found
            for key in first
            for found in differences(first[key], second[key], f"{name}.{key}")
        ]
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return [name]
        return [
            found
            for index, pair in enumerate(zip(first, second, strict=True))
            for found in differences(*pair, f"{name}[{index}]")
        ]
    return [] if first == second else [name]


def end_of(folder: Path) -> dict[str, Any]:
    """What must be the same at the end: weights, optimizer, updates, place in the data."""
    state = load_checkpoint_file(folder / "checkpoint_last.pt")
    return {
        "model": state["model"],
        "optimizer": state["last_optimizer_state"],
        "updates": state["optimizer_history"][-1]["num_updates"],
        "iterator": state["extra_state"]["train_iterator"],
    }


def one_run(
    data: str, options: list[str], updates: int, most: int, folder: Path, rng: random.Random
) -> dict[str, Any]:
    """The run without and with kills, compared."""
    seed = rng.randrange(1000)
    arguments = [*COMMON, *options, "--seed", str(seed), "--max-update", str(updates)]
    command = ["fairseq-train", data, *arguments, "--save-dir"]
    whole, killed = folder / "whole", folder / "killed"
    begin = time.monotonic()
    status = ended(start([*command, str(whole)], whole.with_suffix(".log")), 600)
    seconds = time.monotonic() - begin
    require_success(status, whole.with_suffix(".log"))
    kills = killed_run([*command, str(killed)], killed, seconds, most, rng)
    return {
        "options": shlex.join(arguments),
        "shards": 1 + data.count(":"),
        "seconds_without_kills": round(seconds, 2),
        "kills": kills,
        "differences": differences(end_of(whole), end_of(killed)),
    }


def main() -> None:
    """Run, print, write."""
    args = parse_arguments()
    torch.set_num_threads(1)
    rng = random.Random(args.seed)
    runs: list[dict[str, Any]] = []
    done, wrong = 0, 0
    with tempfile.TemporaryDirectory() as name, tqdm(total=args.kills, unit="kill") as bar:
        folder = Path(name)
        second = second_shard(args.data, folder / "second")
        for number, options in enumerate(drawn_options(rng)):
            if done >= args.kills:
                break
            data = str(args.data)
            if "{second}" in options:
                options.remove("{second}")
                data = f"{data}:{second}"
            place = folder / str(number)
            place.mkdir()
            most = min(args.kills_per_run, args.kills - done)
            run = one_run(data, options, args.updates, most, place, rng)
            shutil.rmtree(place)
            runs.append(run)
            done += len(run["kills"])
            bar.update(len(run["kills"]))
            if run["differences"]:
                wrong += 1
                tqdm.write(f"differs in {run['differences'][:3]}: {run['options']}")
            if args.output:
                write_json(args.output, report(args, runs))
    print(f"{done} kills in {len(runs)} runs: {len(runs) - wrong} runs end bit for bit the same")
    found = report(args, runs)
    headers = ["kills", "kills_while_a_checkpoint_was_written", "runs", "runs_that_differ"]
    show(args, headers, [[found[name] for name in headers]])
    raise SystemExit(1 if wrong else 0)


def report(args: argparse.Namespace, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The results as they are written."""
    kills = [kill for run in runs for kill in run["kills"]]
    return {
        "command": f"python benchmarks/random_kills.py DATA --kills {args.kills} "
        f"--kills-per-run {args.kills_per_run} --updates {args.updates} --seed {args.seed}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, PyTorch {torch.__version__}",
        "kills": len(kills),
        "kills_while_a_checkpoint_was_written": sum(kill["while_writing"] for kill in kills),
        "runs": len(runs),
        "runs_that_differ": sum(bool(run["differences"]) for run in runs),
        "details": runs,
    }


if __name__ == "__main__":
    main()
