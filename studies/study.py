"""What all studies share: runs described by their options, trained, measured, kept as small files.

A study is a list of `Run`s. Each is one `fairseq-train` process of one thread, whose checkpoints lie
in `--work DIR/NAME` and whose result becomes `--results DIR/NAME.json`: command, data, date, machine,
curves, and what `studies.probe` and the test set say. A run with a result is not trained again,
one that was interrupted goes on from its last checkpoint, so a study can be spread over days and
its results committed one by one. Results and checkpoints of another command or of other data are
refused; results that do not say of which data they are (those of November 2026) are for
`--report` only.
"""

import argparse
import csv
import datetime
import json
import logging
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from admin_nmt.analysis.training_log import Curve, read_curve
from admin_nmt.errors import UserError, require_at_least_one
from admin_nmt.files import atomic_write, last_line
from admin_nmt.installed import machine
from admin_nmt.json_files import read_json, write_json
from admin_nmt.programs import OutOfTimeError, run_program, threads
from studies.measures import fingerprint, training_fingerprint

BIN = Path(sys.executable).parent
#: One thread a process: narrow models gain nothing from more. glibc keeps the memory it got.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
}


#: `--device` -> the options of fairseq's programs.
DEVICES: dict[str, tuple[str, ...]] = {"cpu": ("--cpu",), "cuda": ()}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: of its folder and of its result file.
        options: of `fairseq-train`, without data, seed, length and places.
        updates: length.
        seed: of everything.
        probe_every: updates between the checkpoints that are looked at, of which the last update is one;
            the first update is looked at too.
        translate: score the test set with the average of the last `average` of these checkpoints.
        labels: what the tables and plots need to know, kept in the result.
    """

    name: str
    options: str
    updates: int
    seed: int = 1
    probe_every: int = 500
    translate: bool = False
    average: int = 3
    labels: dict[str, Any] = field(default_factory=dict)


#: In the folder of a run: how far it is trained, and its `origin`.
TRAINED = "trained.json"
_TRAINING = "training data"


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every study has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("data", metavar="DATA", type=Path, help="data-bin of admin-nmt prepare")
    made.add_argument("--work", type=Path, required=True, metavar="DIR", help="checkpoints, logs")
    made.add_argument(
        "--results", type=Path, metavar="DIR", help="default: results in that of --work"
    )
    made.add_argument("--device", choices=list(DEVICES), default="cpu", help="default: cpu")
    made.add_argument("--only", nargs="+", metavar="NAME", help="these runs only")
    made.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: 1)")
    made.add_argument("--minutes", type=float, help="stop then; the same command goes on")
    made.add_argument("--report", action="store_true", help="train nothing")
    return made


def command(run: Run, data: Path, folder: Path, updates: int, device: str = "cpu") -> list[str]:
    """`fairseq-train` for a run up to `updates`."""
    return [
        str(BIN / "fairseq-train"), str(data), *DEVICES[device], *shlex.split(run.options),
        "--seed", str(run.seed),
        "--max-update", str(updates), "--save-dir", str(folder / "checkpoints"),
        # The first update by itself, for the gradients at the start.
        "--save-interval-updates", str(run.probe_every if updates > 1 else 1),
        "--validate-interval-updates", str(run.probe_every), "--validate-interval", "100000",
        "--no-epoch-checkpoints", "--log-format", "json", "--log-interval", str(min(50, run.probe_every)),
        "--num-workers", "0",
    ]  # fmt: skip


def data_origin(data: Path) -> dict[str, str]:
    """The fingerprints of data."""
    return {"data": fingerprint(data), _TRAINING: training_fingerprint(data)}


def origin(run: Run, data: Path, device: str) -> dict[str, str]:
    """Of what a result or a checkpoint is: the command without places, and the data's fingerprint."""
    words = command(run, Path("DATA"), Path(run.name), run.updates, device)[1:]
    return {"command": shlex.join(words), **data_origin(data)}


def read_own(path: Path, wanted: Mapping[str, str], option: str) -> dict[str, Any]:
    """Read a result, or what is known of a training.

    Args:
        path: of the JSON file.
        wanted: its `origin`, or a part of it.
        option: with which to choose another place.

    Raises:
        UserError: it is of another origin, or does not say of which.
    """
    found = read_json(path)
    require_own(found, path, wanted, option)
    return found


def require_own(
    found: Mapping[str, Any], path: Path, wanted: Mapping[str, str], option: str
) -> None:
    """Refuse what was read of another origin; see `read_own`."""
    for key, value in wanted.items():
        if key not in found:
            if key == _TRAINING:  # files of earlier versions do not say
                continue
            raise UserError(f"{path} does not say of which {key} it is: give another {option}")
        if found[key] != value:
            raise UserError(f"{path} differs from this run in its {key}: give another {option}")


def call(
    arguments: Sequence[object], log: Path, deadline: float | None, output: Path | None = None
) -> None:
    """Run a program until it ends or time is over; what it says is added to `log`.

    Args:
        arguments: program and its arguments.
        log: of standard output and errors.
        deadline: of `time.monotonic()`; the program has a second in any case. None: none.
        output: a new file for standard output in place of `log`.

    Raises:
        OutOfTimeError: time was over; the program has ended.
        KeyboardInterrupt: the main thread was interrupted; the program has ended.
        UserError: it failed.
    """
    with (
        log.open("a", encoding="utf-8") as errors,
        output.open("wb") if output else nullcontext(errors) as stream,
    ):
        status = run_program(arguments, stream, errors, ENVIRONMENT, deadline)
    if status:
        raise UserError(f"a program failed, see {log}: {last_line(log)}")


def checkpoints(folder: Path) -> dict[int, Path]:
    """Update -> checkpoint, in order."""
    found = {int(p.stem.split("_")[2]): p for p in folder.glob("checkpoints/checkpoint_*_*.pt")}
    return dict(sorted(found.items()))


def train(run: Run, data: Path, folder: Path, deadline: float | None, device: str = "cpu") -> float:
    """Train a run to its end; returns the seconds of all its processes together.

    Raises:
        OutOfTimeError: time was over.
        UserError: it failed, or the folder holds the training of another command or of other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record, own = folder / TRAINED, origin(run, data, device)
    if not record.exists():  # before there are checkpoints
        write_json(record, {"updates": 0, "seconds": 0.0, **own})
    done = read_own(record, own, "--work")
    for updates in (1, run.updates):
        if done["updates"] >= updates:
            continue
        start = time.monotonic()
        try:
            call(command(run, data, folder, updates, device), folder / "train.log", deadline)
            done["updates"] = updates
        finally:
            done["seconds"] += time.monotonic() - start
            write_json(record, done)
    return done["seconds"]


def scores(run: Run, data: Path, folder: Path, device: str = "cpu") -> dict[str, Any]:
    """Average, translate and score the test set; the translations stay in `folder/evaluation`."""
    log, averaged = folder / "evaluate.log", folder / "averaged.pt"
    call(
        [BIN / "admin-nmt", "average", "--inputs", folder / "checkpoints",
         "--num-update-checkpoints", run.average, "--output", averaged], log, None,
    )  # fmt: skip
    call(
        [BIN / "admin-nmt", "evaluate", data, "--path", averaged, *DEVICES[device],
         "--output", folder / "evaluation"], log, None,
    )  # fmt: skip
    return {
        score["name"]: {"score": round(score["score"], 2), "signature": score["signature"]}
        for score in read_json(folder / "evaluation" / "scores.json")["scores"]
    }


def probes(data: Path, paths: dict[int, Path], log: Path) -> dict[int, dict[str, Any]]:
    """Update -> what `studies.probe` finds in its checkpoint."""
    output, script = log.with_suffix(".jsonl"), Path(__file__).with_name("probe.py")
    # -P: modules of this folder are not to be found under their bare names.
    call([sys.executable, "-P", script, data, *paths.values()], log, None, output)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    return {
        update: {key: value for key, value in line.items() if key != "checkpoint"}
        for update, line in zip(paths, lines, strict=True)
    }


def curve(log: Path, name: str) -> dict[str, list]:
    """A curve as it is kept."""
    found: Curve = read_curve(log, name)
    return {"updates": found.updates, "values": [round(value, 4) for value in found.values]}


def thinned(found: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Of all probes: the share at each; gradients and omegas of the first, of update 1,000 or the
    one nearest to it, and of the last."""
    near = min(found, key=lambda update: abs(update - 1000))
    kept = {min(found), near, max(found)}
    return {
        "position_share": {update: value["position_share"] for update, value in found.items()},
        "gradient_norms": {update: found[update]["gradient_norms"] for update in sorted(kept)},
        "omegas": {update: found[update]["omegas"] for update in (min(found), max(found))},
    }


def complete(run: Run, args: argparse.Namespace, deadline: float | None) -> None:
    """Train, look, translate and keep the result of one run, unless it is there."""
    path, folder = args.results / f"{run.name}.json", args.work / run.name
    own = origin(run, args.data, args.device)
    if not path.exists():
        write_json(path, result_of(run, args, folder, own, deadline))
    # Or a process was killed before this; by now the folder may hold another training.
    if (folder / TRAINED).exists():
        read_own(folder / TRAINED, own, "--work")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def result_of(
    run: Run, args: argparse.Namespace, folder: Path, own: Mapping[str, str], deadline: float | None
) -> dict[str, Any]:
    """Train, look, translate; `own` is the run's `origin`. Translations are kept in `--results`."""
    seconds = train(run, args.data, folder, deadline, args.device)
    log = folder / "train.log"
    looked = thinned(probes(args.data, checkpoints(folder), folder / "probe.log"))
    result = {
        "name": run.name, **run.labels, "seed": run.seed, "updates": run.updates, **own,
        "date": datetime.date.today().isoformat(), "machine": f"{machine(args.device)}, one thread",
        "seconds": round(seconds), "train_ppl": curve(log, "ppl"),
        "train_nll_loss": curve(log, "nll_loss"), "valid_nll_loss": curve(log, "valid_nll_loss"),
        **looked,
    }  # fmt: skip
    if run.translate:
        result["test"] = scores(run, args.data, folder, args.device)
        hypotheses = (folder / "evaluation" / "hypotheses.detok").read_text(encoding="utf-8")
        with atomic_write(args.results / f"{run.name}.hyp") as stream:
            stream.write(hypotheses)
    return result


def call_all(
    functions: Sequence[Callable[[], object]],
    jobs: int,
    done: Callable[[], object] = lambda: None,
) -> None:
    """Call the functions in order, `jobs` at a time; one that fails leaves the others running.

    Args:
        functions: take no arguments.
        jobs: how many at a time.
        done: told when one has ended.

    Raises:
        UsageError: `jobs` is below 1.
        Exception: of the first that failed, when all have ended.
        KeyboardInterrupt: the programs of `call` have ended; functions that had not begun are left out.
    """
    require_at_least_one("--jobs", jobs)
    with threads(jobs) as pool:
        futures = [pool.submit(function) for function in functions]
        for _ in as_completed(futures):
            done()
    for future in futures:
        future.result()


def conduct(runs: Sequence[Run], args: argparse.Namespace) -> None:
    """All runs that have no result yet, in order; `args` as `parser` makes them.

    Raises:
        UserError: a run failed, the others have ended; or, before any is trained, a result is of another
            command or of other data.
    """
    unknown = set(args.only or ()) - {run.name for run in runs}
    if unknown:
        raise UserError(f"--only {' '.join(sorted(unknown))}: no such run")
    args.results.mkdir(parents=True, exist_ok=True)
    for run in runs:
        path = args.results / f"{run.name}.json"
        if path.exists():
            read_own(path, origin(run, args.data, args.device), "--results")
    deadline = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    chosen = [run for run in runs if not args.only or run.name in args.only]
    over = threading.Event()

    def attempt(run: Run) -> None:
        if over.is_set() or (deadline is not None and time.monotonic() > deadline):
            return
        try:
            complete(run, args, deadline)
        except OutOfTimeError:
            over.set()

    with tqdm(total=len(chosen), unit=" runs") as bar:
        call_all([partial(attempt, run) for run in chosen], args.jobs, bar.update)


def results(args: argparse.Namespace, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The results that there are, in the order of `runs`.

    Raises:
        UserError: one is of other data.
    """
    paths = [args.results / f"{run.name}.json" for run in runs]
    found = {path: read_json(path) for path in paths if path.exists()}
    of_data = {path: result for path, result in found.items() if "data" in result}
    wanted = data_origin(args.data) if of_data else {}
    for path, result in of_data.items():
        require_own(result, path, wanted, "--results")
    return list(found.values())


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of equal keys as the CSV file `path`."""
    with atomic_write(path) as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of equal keys as the CSV file `path`, and as a table on the terminal."""
    write_csv(path, rows)
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".4g"))


def last_mean(found: dict[str, list], count: int = 2) -> float:
    """Mean of the last `count` values of a curve: each is itself a mean over 50 updates."""
    return sum(found["values"][-count:]) / len(found["values"][-count:])


def exit_status(conduct: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """0, or that of a mistake or an interrupt, which is told in one line.

    SIGTERM is an interrupt too: the programs that run end with this one.

    Logs are for warnings: fairseq sets the level of all libraries to DEBUG.
    """
    logging.disable(logging.INFO)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        conduct(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def main(
    description: str, runs: Sequence[Run],
    report: Callable[[argparse.Namespace, list[dict[str, Any]]], None],
) -> int:  # fmt: skip
    """The command line of a study."""
    args = parser(description).parse_args()
    args.results = args.results or args.work / "results"
    args.data, args.work, args.results = (p.resolve() for p in (args.data, args.work, args.results))

    def conduct_and_report(args: argparse.Namespace) -> None:
        if not args.report:
            conduct(runs, args)
        found = results(args, runs)
        if not found:
            raise UserError(f"no results in {args.results} yet")
        report(args, found)

    return exit_status(conduct_and_report, args)
