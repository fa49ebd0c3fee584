"""Folders that cannot be written, and copies of them that can."""

import shutil
from pathlib import Path


def read_only_copy(data: Path, folder: Path) -> Path:
    """`folder`, a copy of `data` that nobody but root may write to."""
    shutil.copytree(data, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder


def require_writable(folder: Path) -> None:
    """By their modes, which do not stop root, all of a folder can be written by its owner."""
    modes = {path.stat().st_mode & 0o200 for path in (folder, *folder.rglob("*"))}
    assert modes == {0o200}
