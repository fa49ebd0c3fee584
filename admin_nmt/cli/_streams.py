"""Text of a subcommand: from a file or standard input, to a file or standard output."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from admin_nmt.errors import UserError


def open_input(path: str | None, name: str = "--input") -> Any:
    """A stream of bytes; `name` is what a message calls the file.

    Raises:
        UserError: the file cannot be read.
    """
    if path is None:
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise UserError(f"cannot read {name} {path}: {error.strerror or error}") from error


@contextmanager
def open_output(path: str | None) -> Iterator[Callable[[str], Any]]:
    """A function that writes text; a file appears only when everything is written."""
    from admin_nmt.files import atomic_write
    from admin_nmt.progress import above_bars

    if path is not None:
        with atomic_write(path) as stream:
            yield stream.write
        return
    # Lines go out as soon as they are there, in UTF-8 whatever the locale.
    binary: IO[bytes] = sys.stdout.buffer
    beside_bars = above_bars if sys.stdout.isatty() else nullcontext

    def write(text: str) -> None:
        with beside_bars():
            binary.write(text.encode("utf-8"))
            binary.flush()

    yield write
