"""Runs the stages of the GPU check one after the other, each in a process of its own.

Run it through `scripts/gpu-check.sh`. A stage that fails or exceeds its time is reported in one
line, and the next one runs. What a stage has found is on disk as soon as it is found.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tabulate import tabulate

from admin_nmt.errors import UsageError, UserError
from admin_nmt.files import atomic_write, last_line, make_directory
from admin_nmt.json_files import write_json
from gpu_check.report import FAILED, OUT_OF_TIME, PASSED, SKIPPED, outcome, render

#: The stages in order of worth, and how the time is shared between those that are still to come.
SHARES = {
    "environment": 1,
    "correct": 4,
    "speed": 8,
    "loss": 1,
    "train": 6,
    "decode": 2,
    "export": 2,
}
#: Seconds that a stage has beyond its time before it is ended, to come to its end by itself.
GRACE = 15.0

SCRIPTS = Path(__file__).resolve().parents[1]
#: Where the stages find each other, the quickstart's parts and the benchmarks' parts.
PATHS = (SCRIPTS, SCRIPTS / "quickstart", SCRIPTS.parent / "benchmarks")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line.

    Raises:
        UsageError: a value makes no sense.
    """
    parser = argparse.ArgumentParser(
        prog="gpu-check.sh",
        description="Check the kernels on this GPU, measure the training speed against fairseq's "
        "own Transformer, train a deep model, translate with it and export it.",
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="for all stages together (default 10)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help="where results go (default gpu-check-output, with --smoke gpu-check-output-smoke)",
    )  # fmt: skip
    parser.add_argument(
        "--stage", action="append", choices=list(SHARES), metavar="NAME",
        help=f"only this stage, repeatable: {', '.join(SHARES)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--smoke", action="store_true", help="the same code with tiny sizes: a rehearsal"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="binarised data with a joined dictionary (default: Multi30k if ADMIN_NMT_MULTI30K "
        "names its folder, else a generated corpus)",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    # What a rehearsal has trained is no model to measure.
    args.output = args.output or Path("gpu-check-output" + "-smoke" * args.smoke)
    if not args.minutes > 0:
        raise UsageError(f"--minutes {args.minutes}: give a number above 0")
    if args.data is not None and not list(args.data.glob("dict.*.txt")):
        raise UserError(f"--data {args.data} holds no binarised data (dict.*.txt)")
    return args


def require_gpu(device: str) -> None:
    """Refuse early where there is nothing to check.

    Raises:
        UserError: PyTorch sees no GPU.
    """
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                "PyTorch sees no CUDA device; --device cpu --smoke rehearses the check without one"
            )


def seconds_for(stage: str, to_come: Sequence[str], seconds_left: float) -> float:
    """The time of `stage`, the first of the stages `to_come`: what earlier ones did not use is
    shared too."""
    return seconds_left * SHARES[stage] / sum(SHARES[name] for name in to_come)


def end_group(process: subprocess.Popen) -> None:
    """End a process and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
    process.wait()


def run_stage(stage: str, command: Sequence[str], seconds: float, folder: Path) -> dict[str, Any]:
    """Run `command`, which writes the results of `stage` to `folder`, for at most `seconds`.

    Returns:
        its results; `status` and `reason` say how it ended, whatever happened to it.
    """
    for suffix in ("json", "txt"):
        (folder / f"{stage}.{suffix}").unlink(missing_ok=True)
    log = folder / f"{stage}.log"
    paths = [*map(str, PATHS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    timed_out = False
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, process_group=0,
            env=environment,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            timed_out, code = True, 1
        finally:
            end_group(process)
    content = outcome(folder, stage)
    if timed_out:
        content.update(status=OUT_OF_TIME, reason=f"ended after {seconds:.0f} s; rows so far count")
    elif content["status"] == "running" or (code and content["status"] == PASSED):
        content.update(status=FAILED, reason=_last_words(log, code))
    content["seconds"] = round(time.monotonic() - start, 1)
    write_json(folder / f"{stage}.json", content)
    with atomic_write(folder / f"{stage}.txt") as stream:
        stream.write(render(content))
    return content


def _last_words(log: Path, code: int) -> str:
    """Why a process has ended that said nothing itself."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}, see {log}"
    return f"{last_line(log)[:300] or f'exit code {code}'}, see {log}"


def command_of(stage: str, args: argparse.Namespace, seconds: float) -> list[str]:
    """The process of one stage."""
    command = [sys.executable, "-m", "gpu_check", "--process", stage]
    command += ["--output", str(args.output), "--device", args.device]
    command += ["--seconds", f"{seconds:.1f}"]
    command += ["--smoke"] * args.smoke
    return command + (["--data", str(args.data)] if args.data else [])


def run_stages(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all stages asked for; the results of each."""
    end = time.monotonic() + 60 * args.minutes
    wanted = [stage for stage in SHARES if not args.stage or stage in args.stage]
    found = []
    for place, stage in enumerate(wanted):
        seconds = max(seconds_for(stage, wanted[place:], end - time.monotonic()), 1.0)
        print(f"== {stage}, at most {seconds:.0f} s", flush=True)
        content = run_stage(stage, command_of(stage, args, seconds), seconds + GRACE, args.output)
        print(render(content), flush=True)
        found.append(content)
        write_results(args.output, found)
    return found


def write_results(folder: Path, found: Sequence[dict[str, Any]]) -> None:
    """All stages so far in one file each for programs and for people."""
    write_json(folder / "results.json", {content["stage"]: content for content in found})
    with atomic_write(folder / "results.txt") as stream:
        stream.write("\n".join([*map(render, found), summary(found), ""]))


def summary(found: Sequence[dict[str, Any]]) -> str:
    """One line a stage."""
    rows = [[c["stage"], c["status"], c["seconds"], c["reason"]] for c in found]
    return tabulate(rows, ["stage", "result", "s", "reason"], tablefmt="github")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages; 1 if one of them failed or ran out of time."""
    try:
        args = parse_arguments(arguments)
        require_gpu(args.device)
        args.output = make_directory(args.output)
        found = run_stages(args)
    except UserError as error:
        print(f"gpu-check.sh: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gpu-check.sh: interrupted; results so far are in the output folder", file=sys.stderr)
        return 130
    print(f"{summary(found)}\n\nresults: {args.output / 'results.txt'}")
    return int(any(content["status"] not in (PASSED, SKIPPED) for content in found))
