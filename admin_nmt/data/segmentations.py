"""How a word may be split into subwords by chance, as a process of single decisions.

- `MergeDropout`: BPE-dropout (Provilkov et al. 2020) as subword-nmt does it. In each round every place
  where two symbols could be merged is passed over with probability P; of the others those of the
  earliest merge are merged. The word is done when a round leaves nothing.
- `ScoredMergeDropout`: BPE-dropout as SentencePiece does it. Places are visited once, best merge first,
  and passed over for good with probability P; a merge opens its neighbours anew.
- `BestSegmentations`: subword regularisation (Kudo 2018) with SentencePiece's unigram model: one of the
  word's `NUM_BEST` most probable segmentations, with probability in proportion to its own to the power
  of alpha.

A process gives a word its first state, and each state either two states to go on with or the pieces of
the word. Always taking the first of the two gives the segmentation without chance. States are values, so
that what follows from one need be found out once (`resegmenting.WordSampler`).
"""

import math
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from admin_nmt.data import bpe, sentence_pieces

#: Segmentations that a word is drawn among, and words for which they are remembered.
NUM_BEST = 64
_WORDS_REMEMBERED = 30_000

State = Any
Pieces = tuple[str, ...]


class Choice(NamedTuple):
    """Two ways to go on.

    Attributes:
        probability: of the first.
        first: the state without chance.
        second: the other.
    """

    probability: float
    first: State
    second: State


class Process(Protocol):
    """How words are split by chance."""

    def word(self, pieces: Pieces) -> str:
        """The word of which these are all pieces."""

    def start(self, word: str) -> State:
        """The first state of a word."""

    def step(self, state: State) -> Choice | Pieces:
        """What follows a state: a choice, or the pieces of the word."""


class _Merging(NamedTuple):
    """A word in the middle of a round.

    Attributes:
        symbols: what it is split into.
        decided: number of places of the round that are decided, the earliest merge first.
        kept: indices of the left symbols at places of the merge at hand that were not passed over.
    """

    symbols: Pieces
    decided: int = 0
    kept: tuple[int, ...] = ()


class MergeDropout:
    """BPE-dropout of subword-nmt.

    Args:
        codes: file of BPE codes.
        dropout: probability P that a merge is passed over.
    """

    def __init__(self, codes: Path, dropout: float) -> None:
        model = bpe.load(codes)
        self.ranks: Mapping[tuple[str, str], int] = model.bpe_codes
        # Files of version 0.1 have the end of the word as a symbol of its own.
        self.end_apart = model.version == (0, 1)
        self.kept = 1 - dropout

    def word(self, pieces: Pieces) -> str:
        """The word of which these are all pieces."""
        return "".join([piece.removesuffix(bpe.SEPARATOR) for piece in pieces[:-1]]) + pieces[-1]

    def start(self, word: str) -> _Merging:
        """The first round over the characters of a word."""
        if len(word) == 1:
            return _Merging((word,))
        return _Merging((*word, _END) if self.end_apart else (*word[:-1], word[-1] + _END))

    def step(self, state: _Merging) -> Choice | Pieces:
        """Whether the next place is passed over; the pieces if there is none."""
        symbols, decided, kept = state
        places = self._places(symbols)
        if decided == len(places):
            return _marked(symbols)
        rank, index = places[decided]
        decided += 1
        more = decided < len(places) and places[decided][0] == rank
        return Choice(
            self.kept,
            self._after(symbols, decided, (*kept, index), more),
            self._after(symbols, decided, kept, more),
        )

    def _places(self, symbols: Pieces) -> list[tuple[int, int]]:
        """(rank of the merge, index of the left symbol), earliest merge first."""
        ranks = map(self.ranks.get, pairwise(symbols))
        return sorted((rank, index) for index, rank in enumerate(ranks) if rank is not None)

    def _after(self, symbols: Pieces, decided: int, kept: tuple[int, ...], more: bool) -> _Merging:
        """The state, or the next round where there is something to merge and no more such place."""
        if kept and not more:
            return _Merging(_merged(symbols, kept))
        return _Merging(symbols, decided, kept)


_END = "</w>"


def _marked(symbols: Pieces) -> Pieces:
    """Pieces as they stand in text: all but the last end with the mark."""
    if symbols[-1] == _END:
        symbols = symbols[:-1]
    *inner, last = symbols
    return (*(symbol + bpe.SEPARATOR for symbol in inner), last.removesuffix(_END))


def _merged(symbols: Pieces, places: Sequence[int]) -> Pieces:
    """Symbols with those at `places`, in order, merged with the next; in x x x the first two are."""
    result: list[str] = []
    done = 0
    for place in places:
        if place >= done:
            result += symbols[done:place]
            result.append(sys.intern(symbols[place] + symbols[place + 1]))
            done = place + 2
    return (*result, *symbols[done:])


class _Visiting(NamedTuple):
    """A word between two visits: its symbols, and whether the place after each is open."""

    symbols: Pieces
    is_open: tuple[bool, ...]


class ScoredMergeDropout:
    """BPE-dropout of SentencePiece.

    Args:
        model: model file of type `bpe`.
        dropout: probability P that a merge is passed over.
    """

    def __init__(self, model: Path, dropout: float) -> None:
        processor = sentence_pieces.load(model)
        self.scores = {
            processor.id_to_piece(index): processor.get_score(index)
            for index in range(processor.get_piece_size())
            if not (processor.is_control(index) or processor.is_unknown(index))
        }
        self.kept = 1 - dropout

    def word(self, pieces: Pieces) -> str:
        """The word of which these are all pieces, with its mark."""
        return "".join(pieces)

    def start(self, word: str) -> _Visiting:
        """The characters of a word, with all places open."""
        return _Visiting(tuple(word), (True,) * (len(word) - 1))

    def step(self, state: _Visiting) -> Choice | Pieces:
        """Whether the best open place is passed over; the pieces if there is none."""
        symbols, is_open = state
        best: tuple[float, int] | None = None
        for index, usable in enumerate(is_open):
            if (
                usable
                and (score := self.scores.get(symbols[index] + symbols[index + 1])) is not None
            ):
                found = (-score, index)
                best = found if best is None or found < best else best
        if best is None:
            return symbols
        place = best[1]
        opened = list(is_open)
        del opened[place]
        opened[max(place - 1, 0) : place + 1] = [True] * len(opened[max(place - 1, 0) : place + 1])
        closed = (*is_open[:place], False, *is_open[place + 1 :])
        return Choice(
            self.kept,
            _Visiting(_merged(symbols, (place,)), tuple(opened)),
            _Visiting(symbols, closed),
        )


class _Among(NamedTuple):
    """The segmentations of a word from `first` up to but not including `last`, by probability."""

    word: str
    first: int
    last: int


class BestSegmentations:
    """Subword regularisation with a unigram model.

    Args:
        model: model file of type `unigram`.
        alpha: exponent of the probabilities; 0 makes all equal, large values leave the best alone.
    """

    def __init__(self, model: Path, alpha: float) -> None:
        self.processor = sentence_pieces.load(model)
        self.alpha = alpha
        self._best = lru_cache(_WORDS_REMEMBERED)(self._find_best)

    def word(self, pieces: Pieces) -> str:
        """The word of which these are all pieces, with its mark."""
        return "".join(pieces)

    def start(self, word: str) -> _Among:
        """All segmentations of a word."""
        return _Among(word, 0, len(self._best(word)[0]))

    def step(self, state: _Among) -> Choice | Pieces:
        """Whether it is one of the more probable half; the pieces if there is one left."""
        word, first, last = state
        segmentations, sums = self._best(word)
        if last - first == 1:
            return segmentations[first]
        middle = (first + last + 1) // 2
        before = sums[first - 1] if first else 0.0
        probability = (sums[middle - 1] - before) / (sums[last - 1] - before)
        return Choice(probability, _Among(word, first, middle), _Among(word, middle, last))

    def _find_best(self, word: str) -> tuple[list[Pieces], list[float]]:
        """Segmentations, best first, and the sums of their probabilities up to each."""
        text = word.removeprefix(sentence_pieces.WORD_BEGINS)
        found = self.processor.nbest_encode(text, nbest_size=NUM_BEST, out_type=str)
        scores = [sum(map(self._score, pieces)) for pieces in found]
        segmentations, sums, total = [], [], 0.0
        for pieces, score in zip(found, scores, strict=True):
            segmentations.append(tuple(map(sys.intern, pieces)))
            total += math.exp(self.alpha * (score - scores[0]))
            sums.append(total)
        return segmentations or [(word,)], sums or [1.0]

    def _score(self, piece: str) -> float:
        """Logarithm of the probability of a piece."""
        return float(self.processor.get_score(self.processor.piece_to_id(piece)))
