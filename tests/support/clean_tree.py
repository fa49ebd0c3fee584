"""A test run that leaves files in the work tree fails, and says which.

`tests/conftest.py` takes these hooks over. Under xdist only the controller looks.
"""

import subprocess
from pathlib import Path
from typing import Any

import pytest

#: Folders that the tools of a test run keep for themselves, and what installing makes.
CACHES = {"__pycache__", ".pytest_cache", ".hypothesis", ".ruff_cache", ".mypy_cache", ".venv"}
_BEFORE = pytest.StashKey[set[str] | None]()


def stray_files(root: Path) -> set[str] | None:
    """Files and folders under `root` that git does not keep, ignored ones too, without caches.

    None where `root` is not a git checkout or git is missing.
    """
    command = ["git", "status", "--porcelain", "-z", "--untracked-files=all", "--ignored=matching"]
    try:
        status = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    entries = (line[3:] for line in status.stdout.split("\0") if line[:2] in ("??", "!!"))
    return {
        entry
        for entry in entries
        if not CACHES & set(Path(entry).parts) and not Path(entry).name.endswith(".egg-info")
    }


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what lies in the work tree."""
    if not _is_worker(session.config):
        session.config.stash[_BEFORE] = stray_files(session.config.rootpath)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the session when there is more than before."""
    before = session.config.stash.get(_BEFORE, None)
    after = None if before is None else stray_files(session.config.rootpath)
    if before is None or after is None or after <= before:
        return
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        names = ", ".join(sorted(after - before))
        reporter.write_line(f"\nERROR: the tests left files in the work tree: {names}", red=True)
    if session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
