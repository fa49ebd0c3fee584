"""Installed programs, each in a process of its own."""

import os
import subprocess
import sys
import sysconfig
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


def run_program(
    program: str, *args: object, check: bool = True, timeout: float = 300, **env: str
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
