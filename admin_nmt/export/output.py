"""Outputs that exist already are replaced only when asked to."""

import os
from pathlib import Path

from admin_nmt.errors import UsageError, UserError


def require_new_file(
    path: Path,
    force: bool,
    source: str | os.PathLike[str] | None = None,
    option: str = "--output",
) -> None:
    """Refuse, before any work, an output file that cannot or must not be written.

    Args:
        path: the file to be written.
        force: it may replace an existing file.
        source: a file that is read, which the output must not replace.
        option: that names the file, for messages.

    Raises:
        UsageError: it is a folder, its folder is missing, or it is the input.
        UserError: it exists, or its folder cannot be written to.
    """
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder: give the name of a file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}")
    if path.exists():
        if source is not None and Path(source).exists() and path.samefile(source):
            raise UsageError(f"{option} {path} is the input: give another name")
        if not force:
            raise UserError(f"{option} {path} exists: give another name, or --force to replace it")
    _require_writable(path.absolute().parent, path, option)


def require_new_folder(path: Path, force: bool, marker: str) -> None:
    """Refuse, before any work, an output folder that cannot or must not be written.

    With `force` a folder is replaced if it is empty or holds `marker`, a file that tells that it
    was made by this program; never another folder.

    Raises:
        UsageError: it is a file, or the folder around it is missing.
        UserError: it exists, or the folder around it cannot be written to.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"--output {path} is a file: give the name of a folder")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}")
    _require_writable(path.absolute().parent, path)
    try:
        occupied = path.exists() and any(path.iterdir())
    except OSError as error:
        raise UserError(f"--output {path}: {error.strerror or error}") from error
    if occupied and not force:
        raise UserError(f"--output {path} exists: give another name, or --force to replace it")
    if occupied and not (path / marker).is_file():
        raise UserError(f"--output {path} holds other files (no {marker}): not replaced")


def _require_writable(folder: Path, output: Path, option: str = "--output") -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{option} {output}: no permission to write to {folder}")
