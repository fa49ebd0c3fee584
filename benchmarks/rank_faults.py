"""One of two ranks fails in the midst of training: do both go on alike, or both end and resume?

    python benchmarks/rank_faults.py DATA [--faults 30] [--seed 1] [--output FILE.json]

DATA is a small data-bin. Every training has two ranks over gloo on the CPU. A fault has a kind (out of
memory, NaN, an exception, SIGKILL), a rank, an update and a place (forward or backward pass, reduction
of gradients, checkpoint). After it, within a minute, either both ranks must have made their next update,
or both must have ended, the other one with one line that names the rank. Where they went on, weights
must be equal on both ranks after every update. Where they ended, the same command is run again, without
the fault, and must end with the weights, the optimizer state and the place in the data of a training
that met no fault.
"""

import argparse
import datetime
import hashlib
import itertools
import os
import random
import shlex
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from common import parse, show
from fairseq import checkpoint_utils
from fairseq.trainer import Trainer
from random_kills import differences, end_of, start
from tqdm import tqdm

from admin_nmt.installed import machine
from admin_nmt.json_files import write_json

RANKS = 2
UPDATES = 12
SAVE_EVERY = 5
COMMON = (
    "--arch admin_transformer_tiny --cpu --share-all-embeddings --max-tokens 100 --optimizer radam "
    "--lr 1e-3 --dropout 0.1 --log-format json --log-interval 1 --no-epoch-checkpoints "
    f"--disable-validation --num-workers 0 --max-update {UPDATES} --save-interval-updates {SAVE_EVERY} "
    f"--distributed-world-size {RANKS} --distributed-no-spawn --distributed-backend gloo"
).split()
OPTIONS = (
    "--ddp-backend pytorch_ddp",
    "--ddp-backend legacy_ddp --update-freq 2",
    "--ddp-backend pytorch_ddp --update-freq 2 --bf16",
    "--ddp-backend legacy_ddp",
)
#: All there are. A NaN comes again when the same update is computed again, unless it says "once".
PLACES = {
    "out of memory": ("forward", "backward", "reduction", "checkpoint"),
    "NaN": ("forward", "backward", "reduction"),
    "NaN once": ("backward",),
    "exception": ("forward", "backward", "reduction", "checkpoint"),
    "SIGKILL": ("forward", "backward", "reduction", "checkpoint"),
}
#: Of `--smoke`: one of each kind, at one place each.
FEW = (
    ("out of memory", 1, 3, "backward"),
    ("NaN", 1, 4, "backward"),
    ("exception", 0, 7, "reduction"),
    ("SIGKILL", 1, 5, "checkpoint"),
)
MINUTE = 60.0


@dataclass(frozen=True)
class Fault:
    """What happens, on which rank, in which update (from 1), where."""

    kind: str
    rank: int
    update: int
    place: str

    def is_transient(self) -> bool:
        """Whether it does not come again when the same update is computed again."""
        return self.kind != "NaN" or self.place == "reduction"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", type=Path, help="folder made by fairseq-preprocess")
    parser.add_argument("--faults", type=int, default=30, help="how many (default: 30)")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (default: 1)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the results as JSON")
    return parse(parser, faults=len(FEW))


def drawn(rng: random.Random) -> Iterator[tuple[Fault, str]]:
    """Faults and options of their training; each kind comes at each place before any comes again."""
    pairs = [(kind, place) for kind, places in PLACES.items() for place in places]
    options = itertools.cycle(OPTIONS)
    while True:
        rng.shuffle(pairs)
        for kind, place in pairs:
            update = rng.randrange(1, UPDATES)
            if place == "checkpoint":
                update = rng.choice(range(SAVE_EVERY, UPDATES, SAVE_EVERY))
            yield Fault(kind, rng.randrange(RANKS), update, place), next(options)


def watch(folder: Path, rank: int) -> None:
    """In a rank, before training: write a line with the number, the digest of all weights and the time
    after every update."""
    train_step = Trainer.train_step

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = train_step(self, *args, **kwargs)
        if result is not None:
            digest = hashlib.sha256()
            for parameter in self.get_model().parameters():
                digest.update(parameter.detach().float().numpy().tobytes())
            with (folder / f"updates.{rank}").open("a") as file:
                file.write(f"{self.get_num_updates()} {digest.hexdigest()} {time.time()}\n")
        return result

    Trainer.train_step = watched


class Injection:
    """In a rank, before training: let the fault happen."""

    def __init__(self, fault: Fault, folder: Path) -> None:
        self.fault, self.mark = fault, folder / "fault"
        self.is_due = False
        self.installed = False
        train_step = Trainer.train_step
        save, write = checkpoint_utils.save_checkpoint, checkpoint_utils.torch_persistent_save

        def watched(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            self.is_due = trainer.get_num_updates() + 1 == fault.update and not (
                fault.is_transient() and self.mark.exists()
            )
            if not self.installed and fault.place != "checkpoint":
                self.install(trainer)
            return train_step(trainer, *args, **kwargs)

        def saving(cfg: Any, trainer: Any, *args: Any) -> Any:
            self.is_due = fault.place == "checkpoint" and trainer.get_num_updates() == fault.update
            if fault.rank != 0:  # writes nothing
                self.happen()
            return save(cfg, trainer, *args)

        def writing(obj: Any, filename: str, **kwargs: Any) -> Any:
            if self.is_due:
                Path(f"{filename}.tmp").write_bytes(b"half of it")
            self.happen()
            return write(obj, filename, **kwargs)

        Trainer.train_step = watched
        checkpoint_utils.save_checkpoint = saving
        checkpoint_utils.torch_persistent_save = writing

    def install(self, trainer: Any) -> None:
        """Hooks in the model, its criterion and its optimizer."""
        self.installed = True
        model, place = trainer.get_model(), self.fault.place
        if place == "forward" and self.fault.kind == "NaN":
            trainer.get_criterion().register_forward_hook(
                lambda module, inputs, output: (self.changed(output[0]), *output[1:])
            )
        elif place == "forward":
            model.decoder.layers[-1].register_forward_pre_hook(lambda module, inputs: self.happen())
        elif place == "backward":
            list(model.encoder.layers[-1].parameters())[-1].register_hook(self.changed)
        else:
            reduce = trainer.optimizer.all_reduce_grads

            def reducing(module: Any) -> None:
                if self.is_due and self.fault.kind == "NaN":
                    self.mark.write_text(str(time.time()))
                    next(module.parameters()).grad.fill_(torch.nan)
                else:
                    self.happen()
                reduce(module)

            trainer.optimizer.all_reduce_grads = reducing

    def changed(self, value: torch.Tensor) -> torch.Tensor:
        """A value in which the fault is a NaN, or which is computed when the fault happens."""
        if not self.fault.kind.startswith("NaN"):
            self.happen()
        if not self.is_due:
            return value
        self.mark.write_text(str(time.time()))
        self.is_due = not self.fault.is_transient()
        return value * torch.nan

    def happen(self) -> None:
        """The fault, where it is due: once."""
        if not self.is_due:
            return
        self.is_due = False
        self.mark.write_text(str(time.time()))
        if self.fault.kind == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault.kind == "out of memory":
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. (injected)"
            )
        raise ValueError("injected")


def train(
    data: Path, options: str, folder: Path, fault: Fault | None = None
) -> list[tuple[int | None, str]]:
    """Both ranks to their end, a minute after the fault at the latest; exit status (None: still ran) and
    output of each."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    processes: dict[int, int] = {}
    for rank in range(RANKS):

        def prepare(rank: int = rank) -> None:
            watch(folder, rank)
            if fault is not None and fault.rank == rank:
                Injection(fault, folder)

        command = [
            "fairseq-train", str(data), *COMMON, *options.split(), "--save-dir", str(folder),
            "--distributed-init-method", f"tcp://127.0.0.1:{port}", "--distributed-rank", str(rank),
        ]  # fmt: skip
        log = folder / f"{rank}.log"
        log.unlink(missing_ok=True)
        processes[start(command, log, prepare)] = rank
    codes: list[int | None] = [None] * RANKS
    deadline = time.monotonic() + 3 * MINUTE
    while processes and time.monotonic() < deadline:
        number, status = os.waitpid(-1, os.WNOHANG)
        if number:
            rank = processes.pop(number)
            codes[rank] = os.waitstatus_to_exitcode(status)
            (folder / f"ended.{rank}").write_text(str(time.time()))
        else:
            time.sleep(0.02)
        if (folder / "fault").exists() and any(code not in (None, 0) for code in codes):
            deadline = min(deadline, time.monotonic() + MINUTE)
    for number in processes:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
    return [(code, (folder / f"{rank}.log").read_text()) for rank, code in enumerate(codes)]


def updates(folder: Path, rank: int) -> list[tuple[int, str, float]]:
    """(number, digest, time) of the updates of one rank."""
    path = folder / f"updates.{rank}"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(n), digest, float(at)) for n, digest, at in (line.split() for line in lines)]


def require_all_well(ranks: list[tuple[int | None, str]]) -> None:
    """Stop where a training without a fault does not succeed."""
    if any(code != 0 for code, _ in ranks):
        raise SystemExit(f"a training without a fault failed: {[code for code, _ in ranks]}\n"
                         + "\n".join(log[-3000:] for _, log in ranks))  # fmt: skip


def error_lines(log: str) -> list[str]:
    """Lines by which a program says why it ended."""
    return [line for line in log.splitlines() if line.startswith("fairseq-train: error: ")]


def met(
    data: Path, options: str, fault: Fault, folder: Path, twin: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Train with the fault; what came of it, `wrong` listing what should be otherwise.

    Args:
        twin: end of the same training without a fault.
    """
    ranks = train(data, options, folder, fault)
    row: dict[str, Any] = asdict(fault) | {"options": options}
    wrong: list[str] = []
    if not (folder / "fault").exists():
        return row | {"wrong": ["the fault did not happen: " + ranks[fault.rank][1][-2000:]]}
    at = float((folder / "fault").read_text())
    of_rank = [updates(folder, rank) for rank in range(RANKS)]
    digests = [{number: digest for number, digest, _ in of} for of in of_rank]
    common = digests[0].keys() & digests[1].keys()
    equal = all(digests[0][number] == digests[1][number] for number in common)
    if not equal:
        wrong.append("weights differ between the ranks")
    codes = [code for code, _ in ranks]
    others = [log for rank, (_, log) in enumerate(ranks) if rank != fault.rank]
    if codes == [0] * RANKS:
        ends = [next((end for _, _, end in of if end > at), None) for of in of_rank]
        lines = [line for line in ranks[0][1].splitlines() if "left out on all ranks" in line]
        row["outcome"], row["resumed"] = "went on", None
        if [max(of) for of in digests] != [UPDATES] * RANKS or len(lines) != 1:
            wrong.append("not one update was left out")
        line = lines[-1].split(" | ")[-1] if lines else ""
    else:
        ends = [
            float(path.read_text()) if (path := folder / f"ended.{rank}").exists() else None
            for rank in range(RANKS)
        ]
        row["outcome"] = "ended"
        told = [error_lines(log) for log in others]
        line = told[0][-1].removeprefix("fairseq-train: error: ") if told[0] else ""
        if any(len(of) != 1 or f"rank {fault.rank}" not in of[0] for of in told):
            wrong.append(f"other ranks do not say in one line which ended: {told}")
        if any("Traceback" in log for log in others):
            wrong.append("a traceback on another rank")
        if any(code == 0 for code in codes):
            wrong.append(f"exit codes {codes}")
        if (folder / "crash.pt").exists():
            wrong.append("crash.pt")
        had = (folder / "checkpoint_last.pt").exists()
        again = train(data, options, folder)
        require_all_well(again)
        if ("Loaded checkpoint" in again[0][1]) != had:
            wrong.append("did not go on from its checkpoint")
        found = differences(twin(), end_of(folder))
        row["resumed"] = not found
        if found:
            wrong.append(f"the resumed training ends with other {found[:3]}")
    seconds = None if None in ends else max(end for end in ends if end is not None) - at
    if seconds is None or seconds > MINUTE:
        wrong.append("more than a minute")
    row |= {
        "seconds": None if seconds is None else round(seconds, 2),
        "equal_parameters": equal,
        "line": line,
        "wrong": wrong,
    }
    if wrong:
        row["logs"] = [log[-3000:] for _, log in ranks]
    return row


def main() -> None:
    """Run, print, write."""
    args = parse_arguments()
    torch.set_num_threads(1)
    rng = random.Random(args.seed)
    faults = drawn(rng)
    if args.smoke:
        faults = iter((Fault(*fault), OPTIONS[0]) for fault in FEW)
    rows: list[dict[str, Any]] = []
    ends: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name, tqdm(total=args.faults, unit="fault") as bar:

        def twin(options: str) -> dict[str, Any]:
            if options not in ends:
                folder = Path(name) / "twin"
                require_all_well(train(args.data, options, folder))
                ends[options] = end_of(folder)
                shutil.rmtree(folder)
            return ends[options]

        for fault, options in itertools.islice(faults, args.faults):
            folder = Path(name) / "run"
            row = met(args.data, options, fault, folder, lambda options=options: twin(options))
            shutil.rmtree(folder)
            rows.append(row)
            bar.update()
            if row["wrong"]:
                tqdm.write(f"{fault}: {shlex.quote(str(row))}")
            if args.output:
                write_json(args.output, report(args, rows))
    show(args, ["fault", "outcome", "times", "longest, s", "wrong"], summary(rows), floatfmt=".1f")
    raise SystemExit(1 if any(row["wrong"] for row in rows) else 0)


def summary(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """Kind, outcome, how often, the longest seconds, and how many were wrong."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row.get("outcome", "none")), []).append(row)
    return [
        [
            *names,
            len(group),
            max(row.get("seconds") or 0.0 for row in group),
            sum(bool(row["wrong"]) for row in group),
        ]
        for names, group in sorted(groups.items())
    ]


def report(args: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The results as they are written."""
    return {
        "command": f"python benchmarks/rank_faults.py DATA --faults {args.faults} --seed {args.seed}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine()}, {os.cpu_count()} cores",
        "faults": len(rows),
        "wrong": sum(bool(row["wrong"]) for row in rows),
        "went_on": sum(row.get("outcome") == "went on" for row in rows),
        "longest_seconds": max((row.get("seconds") or 0 for row in rows), default=0),
        "details": rows,
    }


if __name__ == "__main__":
    main()
