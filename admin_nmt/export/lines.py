"""Lines of text from files that may hold anything."""

import logging
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from admin_nmt.data.archives import open_text
from admin_nmt.data.odd_lines import Warnings
from admin_nmt.errors import UserError

logger = logging.getLogger(__name__)

#: Bytes of one line that are read; a binary file may have no line end at all.
MAX_LINE_BYTES = 1 << 18


def read_lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines without their ends (LF or CRLF) and without a byte order mark, in UTF-8.

    What is not valid UTF-8 is replaced by U+FFFD, what exceeds `MAX_LINE_BYTES` is left out, both
    with a warning that names the line.
    """
    warnings = Warnings(logger)
    number = 0
    while data := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
            _skip_line(stream)
            warnings.add(
                "longer than the limit",
                f"line {number} is longer than {MAX_LINE_BYTES} bytes: the rest is left out",
            )
            # The cut may have gone through a character.
            data = data.decode("utf-8", "ignore").encode() if _valid_but_cut(data) else data
        data = data.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            data = data.removeprefix(BOM_UTF8)
        try:
            yield data.decode("utf-8")
        except UnicodeDecodeError:
            warnings.add(
                "invalid UTF-8", f"line {number} is not valid UTF-8: U+FFFD takes the place"
            )
            yield data.decode("utf-8", "replace")
    warnings.close()


def _valid_but_cut(data: bytes) -> bool:
    """Whether only the last character of `data` is broken."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(data) - 4 and error.end == len(data)
    return False


def _skip_line(stream: IO[bytes]) -> None:
    while data := stream.readline(MAX_LINE_BYTES):
        if data.endswith(b"\n"):
            return


def count_lines(path: Path) -> int | None:
    """Lines of a regular file, plain or gzip; None for a pipe or device, which is left unopened: what
    writes into a pipe ends when a reader goes away.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if not path.is_file() and not path.is_dir():
            path.stat()
            return None
        count, last = 0, b"\n"
        with open_text(path) as stream:
            while block := stream.read(1 << 20):
                count, last = count + block.count(b"\n"), block[-1:]
        return count + (last != b"\n")
    except OSError as error:
        raise UserError(f"cannot read --input {path}: {error.strerror or error}") from error
