"""Blocks of parallel text: what goes to a worker process, what is done there, what comes back.

Everything here works on a few thousand lines at a time, so that memory does not grow with the text.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import IO, Any

from admin_nmt.data import bpe
from admin_nmt.data.clean import clean_pair
from admin_nmt.data.corpora import Cleaning
from admin_nmt.data.subwords import Subwords
from admin_nmt.data.tokenization import LineTokenizer

#: Of each file its lines, joined by line feeds, because one long text goes
#: to another process much faster than many short ones.
Block = tuple[str, ...]
#: Of the pairs of a block that stay: indices in the block, sources and targets joined by line feeds.
Kept = tuple[list[int], str, str]


@dataclass(frozen=True)
class TokenizePairs:
    """Tokenises a block of raw pairs; cleans it if `cleaning` is given."""

    source: LineTokenizer
    target: LineTokenizer
    cleaning: Cleaning | None

    def __call__(self, block: Block) -> Kept:
        return _changed(block, (self.source, self.target), self.cleaning)


@dataclass(frozen=True)
class SplitPairs:
    """Splits the words of a block of tokenised pairs; cleans it if `cleaning` is given."""

    subwords: Subwords
    cleaning: Cleaning | None

    def __call__(self, block: Block) -> Kept:
        return _changed(block[:2], (self.subwords.split,) * 2, self.cleaning)


def _changed(
    block: Block, functions: Sequence[Callable[[str], str]], cleaning: Cleaning | None
) -> Kept:
    """Each side's lines by its function; then the pairs cleaned."""
    sources, targets = (
        [*map(function, text.split("\n"))] for function, text in zip(functions, block, strict=True)
    )
    if cleaning is None:
        return [*range(len(sources))], "\n".join(sources), "\n".join(targets)
    cleaned = map(clean_pair, sources, targets, repeat(cleaning))
    kept = [(index, *pair) for index, pair in enumerate(cleaned) if pair is not None]
    if not kept:
        return [], "", ""
    indices, *texts = zip(*kept, strict=True)
    return [*indices], "\n".join(texts[0]), "\n".join(texts[1])


def count_words(block: Block) -> Counter[str]:
    """How often each word stands in a block."""
    return bpe.count_words(text.replace("\n", " ") for text in block)


def blocks_of(paths: Sequence[Path], size: int) -> Iterator[Block]:
    """Blocks of `size` lines of files that an earlier step wrote side by side."""
    with ExitStack() as stack:
        streams = [stack.enter_context(path.open(encoding="utf-8", newline="\n")) for path in paths]
        while any(texts := ["".join(islice(stream, size)) for stream in streams]):
            yield tuple(text.removesuffix("\n") for text in texts)


def num_lines(block: Block) -> int:
    """Lines of each file."""
    return block[0].count("\n") + 1


def columns_of(result: Kept) -> list[list[Any]]:
    """Indices, sources and targets."""
    indices, *texts = result
    return [indices, *(text.split("\n") if indices else [] for text in texts)]


def pick(text: str, indices: list[int]) -> list[str]:
    """Those lines of a text."""
    lines = text.split("\n")
    return [lines[index] for index in indices]


def write_columns(streams: Sequence[IO[str]], columns: Sequence[list[str]]) -> None:
    """Write each column to its stream, a line for each of its texts."""
    for stream, texts in zip(streams, columns, strict=True):
        if texts:
            stream.write("\n".join(texts) + "\n")
