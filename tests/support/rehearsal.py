"""Stages of the GPU check in one process that forks the programs they start: importing PyTorch and
fairseq takes most of the time of a program that has little to do.

`python -m tests.support.rehearsal STAGE... -- OPTIONS`; the exit code is 1 if a stage failed.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import admin_nmt_autoload

admin_nmt_autoload.defer_registration = True  # as in the process of a stage

import trainings  # noqa: E402
from admin_nmt.errors import UserError  # noqa: E402
from tests.support.compositions import remembering  # noqa: E402


def start(command: Sequence[str]) -> int | None:
    """What `admin-nmt ...`, `fairseq-train ...` or `python -u -m fairseq_cli.generate ...` does."""
    program, *arguments = command
    if program == "admin-nmt":
        from admin_nmt.cli.main import main

        return main(arguments)
    module = f"fairseq_cli.{program.removeprefix('fairseq-')}"
    if program.startswith("python"):
        place = arguments.index("-m") + 1
        module, arguments = arguments[place], arguments[place + 1 :]
    sys.argv = [module, *arguments]
    return import_module(module).cli_main()


def run(command: Sequence[str | Path], log: Path) -> None:
    """In place of `trainings.run`."""
    program = Path(command[0]).name
    process = os.fork()
    if process == 0:
        code = 1
        try:
            with log.open("wb") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
            code = start([program, *map(str, command[1:])]) or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        raise UserError(f"{program} failed: {log.read_text()[-2000:]}")


def main() -> int:
    trainings.run = run
    separator = sys.argv.index("--")
    stages, options = sys.argv[1:separator], sys.argv[separator + 1 :]
    for stage in stages:  # before fairseq: most of them do without
        import_module(f"gpu_check.{stage}")
    for program in ("train", "generate"):
        import_module(f"fairseq_cli.{program}")
    utils = import_module("fairseq.dataclass.utils")
    utils.compose = remembering(utils.compose)  # as in tests/conftest.py
    from gpu_check.stage import main as run_stage

    return max(run_stage([stage, *options]) for stage in stages)


if __name__ == "__main__":
    sys.exit(main())
