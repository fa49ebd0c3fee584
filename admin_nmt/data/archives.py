"""Lines of text out of archives: tar of any compression, gzip, gzip inside tar, or plain files.

Everything is read as a stream: nothing is unpacked to disk, and memory does not depend on size.
"""

import difflib
import gzip
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from admin_nmt.data.corpora import Rules, Source, fill
from admin_nmt.errors import UserError

_GZIP_MAGIC = b"\x1f\x8b"
_TAR_BUFFER = 1 << 20
_BYTE_ORDER_MARK = "\ufeff"


def read_lines(path: Path, member: str | None, invalid_utf8: str = "error") -> Iterator[str]:
    """Lines of a file or of one member of a tar archive, without their line ends.

    Only a line feed ends a line, as for `wc -l`; a carriage return before it goes too. The last
    line may lack its line feed. A byte order mark at the start goes.

    Args:
        path: plain or gzip file, or a tar archive if `member` is given.
        member: path in the archive; unpacked if it ends in `.gz`.
        invalid_utf8: `error`, or `replace` to read such bytes as U+FFFD.

    Raises:
        UserError: missing file or member, damaged archive, bytes that are not UTF-8.
    """
    name = str(path) if member is None else f"{path}:{member}"
    errors = "replace" if invalid_utf8 == "replace" else "strict"
    try:
        with _undamaged(name, path), ExitStack() as stack:
            if member is None:
                stream: Iterable[bytes] = _open(path, stack)
            else:
                stream = _open_member(path, member, stack)
            for number, line in enumerate(stream, 1):
                text = line.removesuffix(b"\n").rstrip(b"\r").decode("utf-8", errors)
                yield text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name}, line {number}: not UTF-8 text ({error.reason}); convert the file to UTF-8"
        ) from None
    except FileNotFoundError:
        raise UserError(f"file not found: {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from error


@contextmanager
def open_text(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a pipe or device, or of a file, plain or gzip.

    Raises:
        UserError: what is unpacked is damaged.
        OSError: it cannot be read.
    """
    with ExitStack() as stack:
        stream = _open(path, stack) if path.is_file() else stack.enter_context(path.open("rb"))
        if isinstance(stream, gzip.GzipFile):  # others cannot be
            stack.enter_context(_undamaged(str(path), path))
        yield stream


@contextmanager
def _undamaged(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"{name} is damaged or incomplete ({error}): get {path.name} again"
        ) from error


def _open(path: Path, stack: ExitStack) -> IO[bytes]:
    stream = stack.enter_context(path.open("rb"))
    is_gzip = stream.read(2) == _GZIP_MAGIC
    stream.seek(0)
    if not is_gzip:
        return stream
    unpacked: Any = stack.enter_context(gzip.GzipFile(fileobj=stream))
    return unpacked


def _open_member(path: Path, member: str, stack: ExitStack) -> Iterable[bytes]:
    # Stream mode reads a compressed archive once; the index that other modes build costs a pass.
    archive = tarfile.open(path, "r|*", bufsize=_TAR_BUFFER)  # noqa: SIM115
    stack.enter_context(archive)
    seen = []
    for info in archive:
        name = info.name.removeprefix("./")
        if name == member and info.isfile():
            stream = archive.extractfile(info)
            if stream is None:
                break
            return stack.enter_context(gzip.open(stream)) if member.endswith(".gz") else stream
        seen.append(name)
    close = difflib.get_close_matches(member, seen, n=3)
    hint = f"; it has {', '.join(close)}" if close else ""
    raise UserError(f"archive {path} has no member {member}{hint}")


def apply_rules(lines: Iterable[str], rules: Rules) -> Iterator[str]:
    """Drop, keep and change lines as a corpus file says; changed lines lose outer white space."""
    substitutions = [(re.compile(expression), text) for expression, text in rules.substitute]
    for line in lines:
        if any(text in line for text in rules.drop_lines):
            continue
        if rules.keep_lines and not any(text in line for text in rules.keep_lines):
            continue
        for expression, text in substitutions:
            line = expression.sub(text, line)
        yield line.strip() if substitutions else line


def _read_side(
    source: Source,
    languages: tuple[str, str],
    side: int,
    files: dict[str, Path],
    invalid_utf8: str,
) -> tuple[str, Iterator[str]]:
    """What messages call one of two parallel files, and its lines after its rules."""
    archive = fill(source.archive, languages, side)
    member = None if source.member is None else fill(source.member, languages, side)
    lines = read_lines(files[archive], member, invalid_utf8)
    name = str(files[archive]) if member is None else f"{archive}:{member}"
    return name, lines if source.rules == Rules() else apply_rules(lines, source.rules)


def read_first_side(
    source: Source, languages: tuple[str, str], files: dict[str, Path], invalid_utf8: str
) -> Iterator[str]:
    """The source side of what `read_pairs` reads; raises alike."""
    return _read_side(source, languages, 0, files, invalid_utf8)[1]


def read_pairs(
    source: Source, languages: tuple[str, str], files: dict[str, Path], invalid_utf8: str
) -> Iterator[tuple[str, str]]:
    """Sentence pairs of one pair of parallel files, after its rules.

    Args:
        files: archive name -> where it is.

    Raises:
        UserError: as `read_lines`, or the two sides have different numbers of lines.
    """
    names, sides = zip(
        *(_read_side(source, languages, side, files, invalid_utf8) for side in (0, 1)), strict=True
    )
    counts = [0, 0]
    for first, second in zip_longest(*sides):
        counts[0] += first is not None
        counts[1] += second is not None
        if counts[0] == counts[1]:
            yield first, second
    if counts[0] != counts[1]:
        after = " after dropping lines by its rules" if source.rules != Rules() else ""
        raise UserError(
            f"unequal numbers of lines{after}: {names[0]} has {counts[0]}, "
            f"{names[1]} has {counts[1]}; the files must be parallel line by line"
        )
