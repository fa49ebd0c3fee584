"""The one rule for lines that no model can translate as they are: empty and too long ones.

A test set of real text has both. Neither may stop a job or shift the lines behind it: an empty line has
an empty translation, a line of more subwords than the model reads is translated in pieces, and a
warning names it.
"""

import logging
import re
from collections import Counter

from admin_nmt.data.bpe import SEPARATOR
from admin_nmt.data.sentence_pieces import WORD_BEGINS
from admin_nmt.data.word_tokens import CONTROL

#: Subwords.
Sentence = list[str]

#: Warnings of one kind that are shown one by one.
SHOWN_WARNINGS = 10

_END_OF_SENTENCE = re.compile(r"[.!?;:。！？]$|^(?:&quot;|&apos;|\))$")


def is_empty(line: str) -> bool:
    r"""Whether a line has nothing but white space and control characters.

    >>> is_empty(" \t\x00"), is_empty("\x01.")
    (True, False)
    """
    return not CONTROL.sub("", line).strip()


class Warnings:
    """Shows the first warnings of each kind and counts the others."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, message: str) -> None:
        """One more of this kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN_WARNINGS:
            self.logger.warning("%s", message)

    def close(self) -> None:
        """Say how many were not shown."""
        for kind, count in self.counts.items():
            if count > SHOWN_WARNINGS:
                self.logger.warning("%d more lines: %s", count - SHOWN_WARNINGS, kind)
        self.counts.clear()


def pieces_of(sentence: Sentence, limit: int, name: str, warnings: Warnings) -> list[Sentence]:
    """What is translated of a line: no piece if it is empty, several if it is too long.

    Args:
        sentence: its subwords.
        limit: subwords that the model reads at once.
        name: of the line, for the warning: `line 7`.
        warnings: told of a line in several pieces.
    """
    pieces = split_long(sentence, limit)
    if len(pieces) > 1:
        warnings.add(
            "too long",
            f"{name} has {len(sentence)} subwords, the model reads {limit}: translated in "
            f"{len(pieces)} pieces",
        )
    return pieces


def split_long(sentence: Sentence, limit: int) -> list[Sentence]:
    """Pieces of at most `limit` subwords, together the sentence; none if it is empty.

    A piece ends after the last sentence-final punctuation in its second half, else between words,
    else (a word longer than `limit`) anywhere.

    Raises:
        ValueError: `limit` is below 1.
    """
    if limit < 1:
        raise ValueError(f"limit {limit}: a piece has at least one subword")
    pieces = []
    while len(sentence) > limit:
        cut = _cut(sentence[: limit + 1], limit)
        pieces.append(sentence[:cut])
        sentence = sentence[cut:]
    return [*pieces, sentence] if sentence else pieces


def _cut(head: Sentence, limit: int) -> int:
    """Where to end a piece, from 1 to `limit`."""
    raw = any(piece.startswith(WORD_BEGINS) for piece in head)
    between_words = [
        place
        for place in range(limit, limit // 2, -1)
        if (_ends_raw_word if raw else _ends_word)(head[place - 1], head[place])
    ]
    for place in between_words:
        if _END_OF_SENTENCE.search(head[place - 1]):
            return place
    return between_words[0] if between_words else limit


def _ends_word(piece: str, following: str) -> bool:
    """Whether a word ends between two pieces of subword-nmt."""
    return not piece.endswith(SEPARATOR)


def _ends_raw_word(piece: str, following: str) -> bool:
    """Whether a word, or a sentence of a script without spaces, ends between two pieces of
    SentencePiece."""
    return following.startswith(WORD_BEGINS) or piece.endswith(("。", "！", "？"))
