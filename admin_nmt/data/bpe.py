"""Byte pair encoding with subword-nmt: count words, learn merges, split words."""

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from admin_nmt.data.memory import Memory
from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

#: What ends every piece of a word but the last.
SEPARATOR = "@@"


def count_words(lines: Iterable[str]) -> Counter[str]:
    """How often each word occurs, in order of first occurrence."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.split(" "))
    # Of empty lines, and of spaces that follow on each other.
    del counts[""]
    return counts


def learn(counts: Counter[str], num_merges: int, path: Path) -> int:
    """Learn merges and write them to `path` in the format of subword-nmt.

    Returns:
        How many were learned: fewer than asked for if no pair of symbols is left that occurs twice.

    Raises:
        UserError: there is nothing to merge: no word has two letters, or no pair occurs twice.
    """
    from subword_nmt import learn_bpe

    if not any(len(word) > 1 for word in counts):
        raise UserError("cannot learn BPE: the training text has no word of two letters or more")
    try:
        with atomic_write(path) as stream, _quicker(learn_bpe):
            vocabulary = (f"{word} {count}" for word, count in counts.items())
            learn_bpe.learn_bpe(vocabulary, stream, num_merges, is_dict=True)
    finally:
        load.cache_clear()  # `path` may have held other codes
        _words.cache_clear()
    with path.open(encoding="utf-8", newline="\n") as stream:
        learned = sum(1 for _ in stream) - 1
    if not learned:
        path.unlink()  # subword-nmt cannot read its own file without merges
        raise UserError("cannot learn BPE: no two letters of the training text meet twice")
    return learned


@contextmanager
def _quicker(learn_bpe: Any) -> Iterator[None]:
    """Names in the module of subword-nmt that stand for something else meanwhile.

    The most frequent pair of symbols is sought, and the table of pairs copied, in two thirds of
    the whole time; both go without a call of Python for every pair. Its bar draws on log files too,
    and it writes to stderr when no pair is left, which `learn` tells its caller.
    """
    ours = {
        "tqdm": lambda steps: progress(logger, "learn BPE", "merges", steps),
        "max": _max,
        "sys": SimpleNamespace(stderr=StringIO(), version_info=sys.version_info),
        # Of numbers by tuples of text, of which a plain copy is as good as a deep one.
        "copy": SimpleNamespace(deepcopy=copy),
    }
    before = {name: getattr(learn_bpe, name) for name in ours if hasattr(learn_bpe, name)}
    vars(learn_bpe).update(ours)
    try:
        yield
    finally:
        for name in ours:
            delattr(learn_bpe, name)
        vars(learn_bpe).update(before)


def _max(values: Any, key: Any = None) -> Any:
    """`max` as subword-nmt calls it: of numbers, or of pairs by (frequency, pair)."""
    if key is None:
        return max(values)
    highest = max(values.values())
    return max(pair for pair, frequency in values.items() if frequency == highest)


@cache
def load(path: Path) -> Any:
    """The `subword_nmt.apply_bpe.BPE` of a codes file; read once in each process.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    from subword_nmt.apply_bpe import BPE

    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            bpe = BPE(stream, separator=SEPARATOR)
        if bpe.version not in ((0, 1), (0, 2)):  # else refused at the first word, without a message
            raise ValueError(bpe.version)
        return bpe
    except OSError as error:
        raise UserError(f"cannot read BPE codes {path}: {error.strerror or error}") from error
    except (SystemExit, ValueError):  # no pairs; no UTF-8, or another version
        raise UserError(f"{path} does not hold BPE codes of subword-nmt") from None


@cache
def _words(path: Path) -> Memory:
    """Word -> its pieces, joined by spaces."""
    bpe = load(path)

    def split_word(word: str) -> str:
        bpe.cache.clear()  # subword-nmt would remember every word; the table is bounded
        return " ".join(bpe.segment_tokens([word]))

    return Memory(split_word)


def split(line: str, path: Path) -> str:
    """Split the words of a tokenised line with the codes in `path`."""
    words = line.strip("\r\n ").split(" ")
    if "" in words:
        words = [word for word in words if word]
    return " ".join(map(_words(path).__getitem__, words))


def merge(line: str) -> str:
    """Undo `split`: `lo@@ w er` becomes `low er`."""
    return (line + " ").replace(SEPARATOR + " ", "").rstrip()
