"""Installed programs, each in a process of its own."""

import os
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path

BIN = Path(sys.executable).parent

#: Runs a fairseq program in a Python that has no admin_nmt: -S leaves out the .pth files that make
#: it importable and hook it into fairseq, and None in sys.modules makes its import fail.
WITHOUT_US = """
import runpy, site, sys
site.sethelper(); site.setquit()  # fairseq uses `help`, which -S leaves out too
sys.path += {site!r}
sys.modules["admin_nmt"] = sys.modules["admin_nmt_autoload"] = None
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""

#: Before the code that `stopped_alone` runs.
RUNS_ON = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start the background without
PROGRAM = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]
"""


def run_program(
    program: str, *args: object, check: bool = True, timeout: float = 600, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run an installed program in a process of its own; with `check`, it must succeed."""
    result = subprocess.run(
        [str(BIN / program), *map(str, args)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        timeout=timeout,
    )
    if check:
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result


def run_tool(name: str, *arguments: object) -> str:
    """Run an installed program, which must succeed; its output."""
    return run_program(name, *arguments).stdout


def stopped_alone(
    code: str, number: int, folder: Path, *paths: Path
) -> tuple[int, str, list[Path]]:
    """Run Python code that runs two programs, and send it a signal, but not them: a terminal sends an
    interrupt to all.

    Args:
        code: has the list `PROGRAM`, which prints its number and runs on, to be run with the logs
            `1.log` and `2.log` in the folder `sys.argv[1]`.
        number: of the signal.
        folder: is empty.
        paths: where it finds modules.

    Returns:
        its exit status, what it said on standard error, and the logs of programs that still ran then.
    """
    logs = [folder / "1.log", folder / "2.log"]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, paths))}
    process = subprocess.Popen(
        [sys.executable, "-c", RUNS_ON + code, str(folder)], stderr=subprocess.PIPE, text=True,
        env=os.environ | environment,
    )  # fmt: skip
    try:
        while not all(log.exists() and log.read_text().endswith("\n") for log in logs):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=600)
    finally:
        process.kill()
        running = []
        for log in logs:
            with suppress(ProcessLookupError, FileNotFoundError, ValueError):
                os.kill(int(log.read_text()), signal.SIGKILL)
                running.append(log)
    return process.returncode, said, running


def run_without_us(module: str, *args: object) -> subprocess.CompletedProcess[str]:
    """`python -m module args` where admin_nmt is not installed; it must succeed."""
    code = WITHOUT_US.format(
        site=[sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")], module=module
    )
    result = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code, *map(str, args)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result
