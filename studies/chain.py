"""Steps that follow each other: programs run once, resumed where they were interrupted, recorded.

A study that trains, prunes, fine-tunes and exports is a chain. Each step is one program; when it has
ended well, a small file in `FOLDER/done` says so, with its command, date and seconds, and its
command line is added to `FOLDER/commands.sh`. A step that was interrupted runs again, so a program in
a chain must be able to: it resumes (`fairseq-train`) or replaces its output (`--force`). What has
ended well is never done anew in the same folder: a training would find its last checkpoint there.
"""

import datetime
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from admin_nmt.errors import UserError
from admin_nmt.json_files import read_json, write_json
from studies.study import BIN, call, call_all


@dataclass(frozen=True)
class Step:
    """One program of a chain.

    Attributes:
        name: unique within the chain; of its log and of its mark.
        command: program, of this environment where it has one of that name, and arguments.
    """

    name: str
    command: tuple[str, ...]


def step(name: str, *command: object) -> Step:
    """A step from words of any type."""
    return Step(name, tuple(map(str, command)))


def mark(folder: Path, name: str) -> Path:
    """The file that says that a step is done."""
    return folder / "done" / f"{name}.json"


def begun(folder: Path, name: str) -> Path:
    """The file that says with which command a step was begun first."""
    return folder / "begun" / f"{name}.json"


def log_of(folder: Path, name: str) -> Path:
    """What the program of a step wrote on the terminal."""
    return folder / "logs" / f"{name}.log"


def done(folder: Path, name: str) -> dict[str, Any] | None:
    """Command, date and seconds of a finished step; None before."""
    path = mark(folder, name)
    return read_json(path) if path.exists() else None


def run(steps: Sequence[Step], folder: Path) -> None:
    """Run the steps that are not done, in order.

    Raises:
        UserError: a program failed, the line names its log; or a step that has ended or begun had other
            arguments, or one before it is not done.
    """
    for place in ("done", "begun", "logs"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    _require_in_order(steps, folder)
    for one in tqdm(steps, unit=" steps", desc=folder.name):
        ended = done(folder, one.name)
        if ended is not None:
            _require_same(one, ended["command"], mark(folder, one.name))
            continue
        start_mark = begun(folder, one.name)
        if start_mark.exists():  # what it has left is gone on from
            _require_same(one, read_json(start_mark)["command"], start_mark)
        else:
            write_json(start_mark, {"command": shlex.join(one.command)})
        program, *arguments = one.command
        path = str(BIN / program) if (BIN / program).exists() else program
        start = time.monotonic()
        call([path, *arguments], log_of(folder, one.name), None)
        with (folder / "commands.sh").open("a", encoding="utf-8") as stream:
            stream.write(shlex.join(one.command) + "\n")
        write_json(
            mark(folder, one.name),
            {
                "command": shlex.join(one.command),
                "date": datetime.date.today().isoformat(),
                "seconds": round(time.monotonic() - start, 3),
            },
        )


def _require_same(one: Step, command: str, path: Path) -> None:
    """Refuse to take the results of another command for those of this one."""
    if command != shlex.join(one.command):
        raise UserError(f"{path} is of another command ({command}): give another --output")


def _require_in_order(steps: Sequence[Step], folder: Path) -> None:
    """Refuse results that a step before them, which is to run (again), would contradict."""
    missing = None
    for one in steps:
        if not mark(folder, one.name).exists():
            missing = missing or one.name
        elif missing is not None:
            raise UserError(
                f"{mark(folder, one.name)} is there, but {missing}, which comes before it, is not "
                "done: give another --output"
            )


def run_all(chains: Mapping[Path, Sequence[Step]], jobs: int = 1) -> None:
    """Run several chains, `jobs` at a time; a chain that fails leaves the others running.

    Args:
        chains: folder -> steps.
        jobs: how many at a time.

    Raises:
        UserError: a program failed.
    """
    call_all([partial(run, steps, folder) for folder, steps in chains.items()], jobs)
