"""Byte pair encoding with subword-nmt: count words, learn merges, split words."""

import logging
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

#: What ends every piece of a word but the last.
SEPARATOR = "@@"
#: Words whose split is remembered; the memory of a long run stays bounded.
_CACHE_SIZE = 500_000


def count_words(lines: Iterable[str]) -> Counter[str]:
    """How often each word occurs, in order of first occurrence."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(word for word in line.split(" ") if word)
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
    # Their bar draws on log files too.
    theirs, learn_bpe.tqdm = learn_bpe.tqdm, _with_progress
    try:
        with atomic_write(path) as stream:
            vocabulary = (f"{word} {count}" for word, count in counts.items())
            learn_bpe.learn_bpe(vocabulary, stream, num_merges, is_dict=True)
    finally:
        learn_bpe.tqdm = theirs
        load.cache_clear()  # `path` may have held other codes
    with path.open(encoding="utf-8", newline="\n") as stream:
        learned = sum(1 for _ in stream) - 1
    if not learned:
        path.unlink()  # subword-nmt cannot read its own file without merges
        raise UserError("cannot learn BPE: no two letters of the training text meet twice")
    return learned


def _with_progress(steps: Iterable[int]) -> Iterable[int]:
    return progress(logger, "learn BPE", "merges", steps)


@cache
def load(path: Path) -> Any:
    """The `subword_nmt.apply_bpe.BPE` of a codes file; read once in each process."""
    from subword_nmt.apply_bpe import BPE

    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            return BPE(stream, separator=SEPARATOR)
    except OSError as error:
        raise UserError(f"cannot read BPE codes {path}: {error.strerror or error}") from error
    except SystemExit:
        raise UserError(f"{path} does not hold BPE codes of subword-nmt") from None


def split(line: str, path: Path) -> str:
    """Split the words of a tokenised line with the codes in `path`."""
    bpe = load(path)
    if len(bpe.cache) > _CACHE_SIZE:
        bpe.cache.clear()
    text: str = bpe.segment(line)
    return text


def merge(line: str) -> str:
    """Undo `split`: `lo@@ w er` becomes `low er`."""
    return (line + " ").replace(SEPARATOR + " ", "").rstrip()
