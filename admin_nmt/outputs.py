"""What a command is to write is checked before any work.

- No output is a file that is read, or another output.
- A file lies in a folder that is there and can be written to. A folder that a command fills is made, with
  its parents (`files.make_directory`), and a second run goes on there or replaces its own files.
- Models and translations that are there are replaced with `--force` only: the files of `fold`, `convert`,
  `extend-vocabulary`, `prune`, `translate` and `mbr`. Replaced without asking is what is made anew as
  trainings go on: averages, measurements, tables, plots and reports.
- A folder that is replaced as a whole (`export`) has to be empty, or to be one that the command made.

Everything is written under a temporary name and then renamed (`files.atomic_write`, `files.atomic_folder`).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from admin_nmt.errors import UsageError, UserError

Name = str | os.PathLike[str] | None

#: What `--plot` offers; a name without an ending becomes a PNG file.
PLOT_ENDINGS = (".png", ".pdf", ".svg")


def require_files(
    outputs: Mapping[str, Name], inputs: Sequence[Name] = (), force: bool = True
) -> None:
    """Refuse output files that cannot or must not be written.

    Args:
        outputs: option -> the file that it names; None for one that is not asked for.
        inputs: what is read.
        force: files that are there may be replaced.

    Raises:
        UsageError: one is a folder, a device, a pipe or an empty name, its folder is missing, or it is an
            input or another output.
        UserError: one exists, or its folder cannot be written to.
    """
    read = [Path(path) for path in inputs if path]
    before: dict[str, Path] = {}
    for option, name in outputs.items():
        if name is None:
            continue
        path = Path(name)
        if not os.fspath(name):
            raise UsageError(f"{option} is empty: give the name of a file")
        if any(_is_same(path, other) for other in read):
            raise UsageError(f"{option} {path} is an input: give another name")
        for other, given in before.items():
            if _is_same(path, given):
                raise UsageError(f"{option} {path} is the {other}: give another name")
        before[option] = path
        if path.is_dir():
            raise UsageError(f"{option} {path} is a folder: give the name of a file")
        if path.exists() and not path.is_file():  # /dev/null would be a file from then on
            raise UsageError(f"{option} {path} is a device or a pipe: give the name of a file")
        _require_place(path, option)
        if path.exists() and not force:
            raise UserError(f"{option} {path} exists: give another name, or --force to replace it")


def require_folder(path: Name) -> None:
    """Refuse a file where a folder is to be filled (`--output`).

    Args:
        path: None if it is not asked for.

    Raises:
        UsageError: it is a file.
    """
    if path and Path(path).exists() and not Path(path).is_dir():
        raise UsageError(f"--output {path} is a file: give the name of a folder")


def require_new_folder(path: Path, force: bool, marker: str) -> None:
    """Refuse an output folder that cannot or must not be written as a whole.

    With `force` a folder is replaced if it is empty or holds `marker`, a file that tells that it
    was made by this program; never another folder.

    Raises:
        UsageError: it is a file, or the folder around it is missing.
        UserError: it exists, or the folder around it cannot be written to.
    """
    require_folder(path)
    _require_place(path, "--output")
    try:
        occupied = path.exists() and any(path.iterdir())
    except OSError as error:
        raise UserError(f"--output {path}: {error.strerror or error}") from error
    if occupied and not force:
        raise UserError(f"--output {path} exists: give another name, or --force to replace it")
    if occupied and not (path / marker).is_file():
        raise UserError(f"--output {path} holds other files (no {marker}): not replaced")


def require_plot(path: str | None) -> None:
    """Refuse an ending of which no plot is drawn; None is a plot that is not asked for.

    Raises:
        UsageError: names the file.
    """
    if path and (ending := Path(path).suffix.lower()) and ending not in PLOT_ENDINGS:
        raise UsageError(f"--plot {path}: give a name that ends in .png, .pdf or .svg")


def _is_same(path: Path, other: Path) -> bool:
    """Whether two names are of one file, which need not be there yet."""
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def _require_place(path: Path, option: str) -> None:
    """The folder around `path` is there and can be written to."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: no permission to write to {folder}")
