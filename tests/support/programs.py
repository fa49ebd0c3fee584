"""Installed programs, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent


def run_program(
    program: str, *args: object, check: bool = True, timeout: float = 120, **env: str
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
    """Run an installed program; its output, or an error that shows it."""
    result = subprocess.run(
        [str(BIN / name), *map(str, arguments)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
