"""Lines of text: read them, undo tokenisation, split compounds."""

import gzip
import os
import re
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from admin_nmt.data.tokenization import LineTokenizer
from admin_nmt.errors import UserError

_GZIP_MAGIC = b"\x1f\x8b"
# On bytes, because the Perl script that defines this measure reads bytes: see `split_compounds`.
_HYPHEN = re.compile(rb"(\S)-(\S)")


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a UTF-8 file, plain or gzip, without white space at their ends.

    Only a line feed ends a line (U+2028 and its like are text here), so counts agree with `wc -l`.

    Args:
        path: the file; `-` is standard input.

    Raises:
        UserError: missing, unreadable, empty, not UTF-8, or a broken gzip file.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
        if data.startswith(_GZIP_MAGIC):
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise UserError(f"file not found: {name}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{name} is a broken gzip file: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or error}") from error
    if not data:
        raise UserError(f"{name} is empty: it must hold one sentence a line")
    lines = data.removesuffix(b"\n").split(b"\n")
    return [_decode(line, name, number) for number, line in enumerate(lines, 1)]


def read_parallel(paths: Sequence[str | os.PathLike[str]]) -> list[list[str]]:
    """The lines of several files of one test set.

    Raises:
        UserError: as `read_lines`, or the files differ in their numbers of lines.
    """
    texts = [read_lines(path) for path in paths]
    for path, text in zip(paths, texts, strict=True):
        require_equal_counts(str(paths[0]), texts[0], str(path), text)
    return texts


def _decode(line: bytes, name: str, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip()
    except UnicodeDecodeError as error:
        raise UserError(f"{name}, line {number}: not UTF-8 text ({error.reason})") from error


def require_equal_counts(name_a: str, a: Sequence[str], name_b: str, b: Sequence[str]) -> None:
    """Refuse two texts that cannot be parallel.

    Raises:
        UserError: with both names and both line counts.
    """
    if len(a) != len(b):
        raise UserError(
            f"unequal numbers of lines: {name_a} has {len(a)}, {name_b} has {len(b)}; "
            "give files that are parallel line by line"
        )


def detokenize(lines: Iterable[str], language: str) -> list[str]:
    """Undo Moses tokenisation with sacremoses.

    Args:
        lines: tokenised sentences, BPE joined.
        language: their language code; it decides about clitics, quotes and the like.
    """
    undo = LineTokenizer(language).undo
    return [undo(line) for line in lines]


def split_compounds(line: str) -> str:
    """Split hyphenated words as fairseq's `compound_split_bleu.sh` does, which says in Perl
    `s{(\\S)-(\\S)}{$1 ##AT##-##AT## $2}g`.

    Matches do not overlap: in `a-b-c` the `b` is used up by the first match, so the second hyphen
    stays. Perl sees bytes there, of which one non-ASCII letter has several, so that in `a-é-c`
    both hyphens are split; hence this works on UTF-8 bytes as well.
    """
    return _HYPHEN.sub(rb"\1 ##AT##-##AT## \2", line.encode()).decode()
