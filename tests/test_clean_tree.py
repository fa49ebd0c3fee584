"""The check that a test run leaves nothing behind, on a repository of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clean_tree import stray_files

HOOKS = Path(__file__).with_name("support") / "clean_tree.py"
DIRTY = "import pathlib\ndef test_{0}(): pathlib.Path(__file__).with_name('{0}.{1}').touch()\n"
CACHING = """
import pathlib
def test_caches():
    for name in ("__pycache__/x.pyc", ".hypothesis/x"):
        path = pathlib.Path(__file__).parent / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git checkout that ignores `*.log`, with our hooks."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("*.log\n__pycache__/\n")
    shutil.copy(HOOKS, tmp_path / "conftest.py")
    return tmp_path


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """With no plugin but xdist: importing the others takes seconds."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "xdist", *options],
        cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("workers", ["-n0", pytest.param("-n1", marks=pytest.mark.long)])
def test_files_left_behind_fail_the_run(repository: Path, workers: str) -> None:
    """Those that git would show, and those that it ignores."""
    dirty = DIRTY.format("crash", "pt") + DIRTY.format("ignored", "log")
    (repository / "test_dirty.py").write_text(dirty)
    result = run_pytest(repository, workers)
    assert result.returncode == 1
    assert "left files in the work tree: crash.pt, ignored.log\n" in result.stdout


def test_caches_and_what_lay_there_before_do_not_matter(repository: Path) -> None:
    (repository / "crash.pt").touch()
    (repository / "test_dirty.py").write_text(DIRTY.format("crash", "pt") + CACHING)
    assert run_pytest(repository, "-n0").returncode == 0
    assert (repository / ".hypothesis" / "x").exists()


def test_outside_a_checkout_nothing_is_checked(repository: Path) -> None:
    shutil.rmtree(repository / ".git")
    (repository / "test_dirty.py").write_text(DIRTY.format("crash", "pt"))
    if stray_files(repository) is None:  # the folder of temporary files may be in a checkout
        assert run_pytest(repository, "-n0").returncode == 0
