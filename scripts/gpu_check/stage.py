"""The process of one stage, started by `run`."""

import argparse
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from admin_nmt.errors import UserError
from gpu_check.report import FAILED, SKIPPED, Report, described


class SkippedError(Exception):
    """There is nothing to do for a stage here; the message says why."""


@dataclass
class Context:
    """What a stage is given.

    Attributes:
        report: takes the results.
        output: folder of all results; a stage may keep more in `output / NAME`.
        device: "cuda" or "cpu".
        smoke: tiny sizes.
        data: binarised data given by the user.
        end: when the time is up, on `time.monotonic`.
    """

    report: Report
    output: Path
    device: str
    smoke: bool
    data: Path | None
    end: float = field(repr=False)

    @property
    def seconds_left(self) -> float:
        """Until the time is up."""
        return self.end - time.monotonic()


def main(arguments: Sequence[str]) -> int:
    """Run one stage; an exception ends it with one line in its results, the rest in its log."""
    parser = argparse.ArgumentParser(prog="gpu_check --process")
    parser.add_argument("stage")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--data", type=Path)
    args = parser.parse_args(arguments)
    report = Report(args.output, args.stage, device=args.device, smoke=args.smoke)
    end = time.monotonic() + args.seconds
    context = Context(report, args.output, args.device, args.smoke, args.data, end)
    try:
        import_module(f"gpu_check.{args.stage}").run(context)
        report.finish()
    except SkippedError as reason:
        report.end(SKIPPED, str(reason))
    except UserError as error:
        report.end(FAILED, str(error))
    except Exception as error:
        traceback.print_exc()
        report.end(FAILED, described(error))
    print(f"{args.stage}: {report.content['status']} {report.content['reason']}")
    return int(report.content["status"] == FAILED)
