"""Text of a subcommand: from a file or standard input, to a file or standard output."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from admin_nmt.errors import UserError


@contextmanager
def open_input(path: str | None, name: str = "--input") -> Iterator[IO[bytes]]:
    """A stream of bytes, of a file or pipe that may be gzip; `name` is what a message calls it.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    from admin_nmt.data.archives import open_text

    if path is None:
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(open_text(Path(path)))
        except OSError as error:
            raise UserError(f"cannot read {name} {path}: {error.strerror or error}") from error
        yield stream


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
