"""What subcommands write is checked before any work."""

from collections.abc import Sequence
from pathlib import Path

from admin_nmt.errors import UsageError

#: What `--plot` offers; a name without an ending becomes a PNG file.
PLOT_ENDINGS = (".png", ".pdf", ".svg")


def require_outputs(*paths: str | None, inputs: Sequence[str | None] = ()) -> None:
    """Refuse output files that could not be written.

    Args:
        paths: output files; None for one that is not asked for.
        inputs: files that are read.

    Raises:
        UsageError: a folder does not exist, or is given in place of a file, or two outputs are one
            file, or one is also an input.
    """
    given = [path for path in paths if path]
    if len({Path(path).resolve() for path in given}) < len(given):
        raise UsageError(f"{given[0]} is given for two outputs: give them different names")
    read = {Path(path).resolve() for path in inputs if path}
    for path in given:
        if Path(path).resolve() in read:
            raise UsageError(f"{path} is read and would be overwritten: give another name")
        if Path(path).is_dir():
            raise UsageError(f"{path} is a folder: give the name of a file")
        if not Path(path).absolute().parent.is_dir():
            raise UsageError(f"folder of {path} does not exist")


def require_plot(path: str | None) -> None:
    """Refuse an ending of which no plot is drawn; None is a plot that is not asked for.

    Raises:
        UsageError: names the file.
    """
    if path and (ending := Path(path).suffix.lower()) and ending not in PLOT_ENDINGS:
        raise UsageError(f"--plot {path}: give a name that ends in .png, .pdf or .svg")
