"""Translation of raw text into raw text, in order and in bounded memory, with either engine."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import Protocol

from admin_nmt.data.odd_lines import Warnings, pieces_of
from admin_nmt.data.word_alignment import Link, Words, word_links
from admin_nmt.export.backend import Backend
from admin_nmt.export.search import Hypothesis, Search, Sentence

logger = logging.getLogger(__name__)

#: Lines that are read before they are sorted by length and translated.
CHUNK_LINES = 2048


class LineText(Protocol):
    """Raw text to subwords and back; `data.text_pipeline.TextPipeline` is one."""

    def encode(self, line: str) -> str:
        """Subwords of a source line, joined by spaces."""

    def decode(self, line: str) -> str:
        """Text from subwords of the target language."""

    def source_words(self, pieces: Sequence[str], line: str) -> list[Words]:
        """For every subword of a source line the words of the line that it is part of."""

    def target_words(self, pieces: Sequence[str], line: str) -> list[Words]:
        """The same for subwords of the target language and their text."""


@dataclass(frozen=True)
class Translation:
    """A translation of one line.

    Attributes:
        text: of it.
        score: log-probability over length; mean over the pieces of a long line.
        alignment: (index of a source word, index of a target word) of linked words, in the line and in
            `text`, where white space separates them; None if it was not asked for.
    """

    text: str
    score: float
    alignment: tuple[Link, ...] | None = None


class Translator:
    """Translates lines of text.

    Args:
        backend: the engine.
        text: turns lines into subwords and back.
        batch_tokens: most subwords in one batch, padding included.
        languages: codes of source and target, where they are known.
    """

    def __init__(
        self,
        backend: Backend,
        text: LineText,
        batch_tokens: int = 1500,
        languages: tuple[str, str] | None = None,
    ) -> None:
        self.backend = backend
        self.text = text
        self.batch_tokens = batch_tokens
        self.languages = languages

    def translate(self, lines: Sequence[str], beam: int = 5, lenpen: float = 1.0) -> list[str]:
        """The best translation of every line; empty lines stay empty.

        `load_translator("exported").translate(["Ein Hund läuft."])` gives `["A dog is running."]`.
        """
        found = self.stream(lines, Search(beam=beam, lenpen=lenpen))
        return [hypotheses[0].text for hypotheses in found]

    def translate_nbest(
        self, lines: Sequence[str], nbest: int, beam: int = 5, lenpen: float = 1.0
    ) -> list[list[Translation]]:
        """The `nbest` best translations of every line with their scores, best first.

        An empty line has one, the empty one.
        """
        return list(self.stream(lines, Search(beam=max(beam, nbest), nbest=nbest, lenpen=lenpen)))

    def stream(
        self,
        lines: Iterable[str],
        search: Search | None = None,
        chunk_lines: int = CHUNK_LINES,
        done: Callable[[int], object] = lambda count: None,
    ) -> Iterator[list[Translation]]:
        """Translations of line after line, reading `chunk_lines` lines ahead.

        Lines with more subwords than the model reads are translated in pieces, with a warning.

        Args:
            done: told after each batch how many more lines are translated.
        """
        search = search or Search()
        if search.sampling is not None:
            self.backend.seed(search.sampling.seed)
        if search.alignment is not None:
            self.backend.require_alignment(search.alignment)
        warnings = Warnings(logger)
        numbered = enumerate(lines, start=1)
        while chunk := list(islice(numbered, chunk_lines)):
            yield from self._chunk(chunk, search, warnings, done)
        warnings.close()

    def _chunk(
        self,
        chunk: list[tuple[int, str]],
        search: Search,
        warnings: Warnings,
        done: Callable[[int], object],
    ) -> list[list[Translation]]:
        lines = [
            pieces_of(self._subwords(line), self.backend.max_source, f"line {number}", warnings)
            for number, line in chunk
        ]
        flat = list(chain.from_iterable(lines))
        done(sum(not pieces for pieces in lines))
        # A line in several pieces counts with its last one.
        is_last = [piece is pieces[-1] for pieces in lines for piece in pieces]
        found = iter(
            translate_sentences(
                self.backend, flat, search, self.batch_tokens,
                lambda batch: done(sum(is_last[index] for index in batch)),
            )
        )  # fmt: skip
        return [
            self._join(line, pieces, [next(found) for _ in pieces], search)
            for (_, line), pieces in zip(chunk, lines, strict=True)
        ]

    def _subwords(self, line: str) -> Sentence:
        return self.text.encode(line).split() if line.strip() else []

    def _join(
        self,
        line: str,
        pieces: list[Sentence],
        found: list[list[Hypothesis]],
        search: Search,
    ) -> list[Translation]:
        """Translations of a line from those of its pieces: the k-th best of each together."""
        aligned = search.alignment is not None
        if not pieces:
            return [Translation("", 0.0, () if aligned else None)]
        sources = list(chain.from_iterable(pieces))
        source_words = self.text.source_words(sources, line) if aligned else []
        joined = []
        for rank in range(min(len(hypotheses) for hypotheses in found)):
            parts = [hypotheses[rank] for hypotheses in found]
            tokens = list(chain.from_iterable(part.tokens for part in parts))
            score = sum(part.score for part in parts) / len(parts)
            text = self.text.decode(" ".join(tokens))
            links = None
            if aligned:
                target_words = self.text.target_words(tokens, text)
                links = tuple(word_links(_attended(pieces, parts), source_words, target_words))
            joined.append(Translation(text, score, links))
        return joined


def _attended(pieces: list[Sentence], parts: list[Hypothesis]) -> list[int]:
    """What the subwords of all parts attend to, counted in the whole line."""
    starts = accumulate((len(piece) for piece in pieces), initial=0)
    return [
        start + place
        for start, part in zip(starts, parts, strict=False)
        for place in part.attended or ()
    ]


def translate_sentences(
    backend: Backend,
    sentences: Sequence[Sentence],
    search: Search,
    batch_tokens: int,
    done: Callable[[list[int]], object] = lambda batch: None,
) -> list[list[Hypothesis]]:
    """Hypotheses of each sentence, in the order given; batches are of sentences of like length.

    Args:
        backend: the engine.
        sentences: subwords, of each at least one and at most `backend.max_source`.
        search: what to look for.
        batch_tokens: most subwords in one batch, padding included; fewer where more samples of each
            sentence are held at once than a beam of 5 holds.
        done: told the indices of the sentences of each batch when it is translated.
    """
    if search.sampling is not None:
        batch_tokens = batch_tokens * 5 // max(5, search.nbest)
    # Longest first: what needs most memory comes before the rest, and batches need little padding.
    order = sorted(range(len(sentences)), key=lambda index: -len(sentences[index]))
    batches = list(batch_by_tokens(order, [len(sentence) for sentence in sentences], batch_tokens))
    results = backend.translate(
        ([sentences[index] for index in batch] for batch in batches), search
    )
    found: dict[int, list[Hypothesis]] = {}
    for batch, hypotheses in zip(batches, results, strict=True):
        found.update(zip(batch, hypotheses, strict=True))
        done(batch)
    return [found[index] for index in range(len(sentences))]


def batch_by_tokens(
    order: Sequence[int], lengths: Sequence[int], max_tokens: int
) -> Iterator[list[int]]:
    """Consecutive items of `order` whose longest length times number stays within `max_tokens`.

    An item longer than `max_tokens` is a batch of its own.
    """
    batch: list[int] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        if batch and longest * (len(batch) + 1) > max_tokens:
            yield batch
            batch, longest = [], lengths[index]
        batch.append(index)
    if batch:
        yield batch
