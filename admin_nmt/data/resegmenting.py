"""Binarised sentences whose words are split anew by chance, a batch at a time.

The words are those of the sentence: its pieces joined. What may become of a word is found out once for
each decision (`segmentations.Process`) and kept as a graph, so that a batch is a few dozen operations on
arrays: all of its words walk through the graph side by side.

Numbers are drawn by position, not in sequence: the draw of a word is a function of seed, epoch, side,
sentence and place in the sentence. So it does not matter in which batch, process or run it is made.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from admin_nmt.data.segmentations import Choice, Process, State
from admin_nmt.data.subwords import Subwords

Integers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]

#: A draw with a piece that is not in the dictionary is drawn again so often; then the word stays.
NUM_DRAWS = 8
#: Decisions that are remembered, about 400 bytes each; beyond, all are forgotten and found out anew.
MAX_NODES = 1_000_000

_DONE = -1.0
# Odd constants that keep the numbers of words, of draws and of decisions apart.
_WORD, _DRAW, _DECISION = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 0x8CB92BA72F3D8DD7)
)


def sentence_keys(seed: int, epoch: int, side: int, sentences: Integers) -> Keys:
    """A number for each sentence from which its draws are made, well mixed.

    Args:
        seed: of the run.
        epoch: from 1.
        side: 0 source, 1 target.
        sentences: N numbers of sentences in the data set.
    """
    keys = np.array([seed % 2**64], dtype=np.uint64)
    for number in (epoch, side):
        keys = _mixed(keys + np.uint64(number + 1) * np.ones_like(keys) * _WORD)
    return _mixed(keys ^ _mixed((sentences.astype(np.uint64) + np.uint64(1)) * _DRAW))


def _mixed(keys: Keys) -> Keys:
    """Steele et al.'s SplitMix64: every bit of the result depends on all bits."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _uniform(keys: Keys) -> npt.NDArray[np.float64]:
    """Numbers from 0 to below 1."""
    return np.asarray((_mixed(keys) >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


class WordSampler:
    """Splits the words of sentences anew.

    Args:
        process: how a word is split by chance.
        subwords: the kind of pieces.
        symbols: the dictionary; a sentence holds places in it.
        num_special: number of symbols at its beginning that are not pieces of words.
        unknown: place of the symbol for unknown pieces.

    Attributes:
        symbols: the dictionary.
    """

    def __init__(
        self,
        process: Process,
        subwords: Subwords,
        symbols: Sequence[str],
        num_special: int,
        unknown: int,
    ) -> None:
        self.process = process
        self.symbols = symbols
        self.unknown = unknown
        self._place = {symbol: place for place, symbol in enumerate(symbols)}
        special = np.arange(len(symbols)) < num_special
        self._special = special
        self._begins = special | np.array([subwords.begins_word(symbol) for symbol in symbols])
        self._ends = special | np.array([subwords.ends_word(symbol) for symbol in symbols])
        self._forget()

    def _forget(self) -> None:
        size = 1 << 12
        # Of each node: the probability of the first way to go on, or `_DONE`, and where both lead to
        # (-1: not found out yet).
        self._probability = np.full(size, _DONE)
        self._next = np.full((2, size), -1, dtype=np.int32)
        self._states: list[State] = []
        self._nodes: dict[State, int] = {}
        # Of each node that is a word's end: where its pieces are in `_pieces`, and if all are known.
        self._first = np.zeros(size, dtype=np.int64)
        self._length = np.zeros(size, dtype=np.int64)
        self._is_known = np.zeros(size, dtype=bool)
        self._is_foreign = np.zeros(size, dtype=bool)
        self._pieces = np.zeros(size, dtype=np.int64)
        self._num_pieces = 0
        # Of each word by its pieces: the node where it starts, and the one of these very pieces.
        self._start: dict[bytes, tuple[int, int]] = {}
        self._start_of_one = np.full((2, len(self.symbols)), -1, dtype=np.int64)

    # -- the graph --------------------------------------------------------------------------------

    def _new_node(self, state: State, probability: float) -> int:
        node = len(self._states)
        self._states.append(state)
        if node == len(self._probability):
            self._probability = _doubled(self._probability)
            self._next = np.stack([_doubled(row) for row in self._next])
            self._first, self._length = _doubled(self._first), _doubled(self._length)
            self._is_known = _doubled(self._is_known)
            self._is_foreign = _doubled(self._is_foreign)
        self._probability[node] = probability
        self._next[:, node] = -1
        return node

    def _new_end(self, places: Sequence[int], is_foreign: bool = False) -> int:
        node = self._new_node(None, _DONE)
        end = self._num_pieces + len(places)
        while end > len(self._pieces):
            self._pieces = _doubled(self._pieces)
        self._pieces[self._num_pieces : end] = places
        self._first[node], self._length[node] = self._num_pieces, len(places)
        self._is_known[node] = self.unknown not in places
        self._is_foreign[node] = is_foreign
        self._num_pieces = end
        return node

    def _node(self, state: State) -> int:
        """The node of a state."""
        node = self._nodes.get(state)
        if node is None:
            found = self.process.step(state)
            if isinstance(found, Choice):
                node = self._new_node(state, found.probability)
            else:
                node = self._new_end([self._place.get(piece, self.unknown) for piece in found])
            self._nodes[state] = node
        return node

    def _follow(self, node: int, way: int) -> int:
        """Where the first (0) or second (1) way leads."""
        following = int(self._next[way, node])
        if following < 0:
            # Found out again rather than kept: most second ways are never taken.
            _, *ways = self.process.step(self._states[node])
            following = self._next[way, node] = self._node(ways[way])
        return following

    def _start_of(self, places: Sequence[int]) -> tuple[int, int]:
        """Where a word of these pieces starts, and the end that has these very pieces.

        A word that is split otherwise without chance (a special symbol, one with an unknown piece, one
        that was cut, one split by other codes) has nothing to decide: it stays as it is.
        """
        is_word = not self._special[places].any() and self.unknown not in places
        if is_word:
            pieces = tuple(self.symbols[place] for place in places)
            start = node = self._node(self.process.start(self.process.word(pieces)))
            while self._probability[node] != _DONE:
                node = self._follow(node, 0)
            first = self._first[node]
            if self._pieces[first : first + self._length[node]].tolist() == list(places):
                return start, node
        node = self._new_end(places, is_word)
        return node, node

    # -- words ------------------------------------------------------------------------------------

    def _words(self, flat: Integers, is_sentence: npt.NDArray[np.bool_]) -> Integers:
        """Where words begin in sentences one after the other."""
        begins = is_sentence | self._begins[flat]
        begins[1:] |= self._ends[flat[:-1]]
        return np.flatnonzero(begins)

    def _starts(self, flat: Integers, words: Integers) -> tuple[Integers, Integers]:
        """`_start_of` of each word."""
        ends = np.append(words[1:], len(flat))
        alone = ends - words == 1
        places = flat[words]
        for place in np.unique(places[alone & (self._start_of_one[0, places] < 0)]).tolist():
            self._start_of_one[:, place] = self._start_of([place])
        starts, same = self._start_of_one[:, places]
        raw, size = flat.tobytes(), flat.itemsize
        longer = np.flatnonzero(~alone)
        for word, begin, end in zip(
            longer.tolist(), words[longer].tolist(), ends[longer].tolist(), strict=True
        ):
            name = raw[size * begin : size * end]
            found = self._start.get(name)
            if found is None:
                found = self._start[name] = self._start_of(flat[begin:end].tolist())
            starts[word], same[word] = found
        return starts, same

    def _walk(self, nodes: Integers, keys: Keys) -> Integers:
        """The ends that are reached from `nodes` by the draws of `keys`."""
        nodes = nodes.copy()
        active = np.flatnonzero(self._probability[nodes] != _DONE)
        decision = np.zeros(1, dtype=np.uint64)
        while len(active):
            decision += _DECISION
            here = nodes[active]
            way = (_uniform(keys[active] + decision) >= self._probability[here]).astype(np.int64)
            following = self._next[way, here].astype(np.int64)
            for index in np.flatnonzero(following < 0).tolist():
                following[index] = self._follow(int(here[index]), int(way[index]))
            nodes[active] = following
            active = active[self._probability[following] != _DONE]
        return nodes

    def _draw(self, starts: Integers, same: Integers, keys: Keys) -> Integers:
        """The end of each word, all of whose pieces are in the dictionary."""
        ends = same.copy()
        waiting = np.flatnonzero(self._probability[starts] != _DONE)
        draw = np.zeros(1, dtype=np.uint64)
        for _ in range(NUM_DRAWS):
            draw += _DRAW
            found = self._walk(starts[waiting], _mixed(keys[waiting] + draw))
            known = self._is_known[found]
            ends[waiting[known]] = found[known]
            waiting = waiting[~known]
            if not len(waiting):
                break
        return ends

    def resegment(
        self, sentences: Sequence[Integers], keys: Keys, limit: int | None = None
    ) -> list[Integers]:
        """The sentences with the words split anew.

        Args:
            sentences: N arrays of places in the dictionary.
            keys: N numbers, of `sentence_keys`.
            limit: a sentence that would be longer stays as it is.
        """
        if len(self._states) > MAX_NODES:
            self._forget()
        flat, is_sentence, lengths = _joined(sentences)
        words = self._words(flat, is_sentence)
        starts, same = self._starts(flat, words)

        sentence = np.repeat(np.arange(len(sentences)), lengths)[words]
        per_sentence = np.bincount(sentence, minlength=len(sentences))
        place = np.arange(len(words)) - np.repeat(
            np.cumsum(per_sentence) - per_sentence, per_sentence
        )
        word_keys = _mixed(keys[sentence] + (place.astype(np.uint64) + np.uint64(1)) * _WORD)
        ends = self._draw(starts, same, word_keys)
        if limit is not None:
            new = np.bincount(sentence, self._length[ends], minlength=len(sentences))
            ends = np.where((new > limit)[sentence], same, ends)

        sizes = self._length[ends]
        before = np.cumsum(sizes) - sizes
        pieces = self._pieces[np.repeat(self._first[ends] - before, sizes) + np.arange(sizes.sum())]
        ends_at = np.cumsum(np.bincount(sentence, sizes, minlength=len(sentences)).astype(np.int64))
        cuts = [0, *ends_at.tolist()]
        return [pieces[begin:end] for begin, end in pairwise(cuts)]

    def share_of_foreign_words(self, sentences: Sequence[Integers]) -> float:
        """How many of the words are split otherwise without chance, and so stay as they are; about 0 if
        the sentences were split by the codes or the model of this object."""
        flat, is_sentence, _ = _joined(sentences)
        words = self._words(flat, is_sentence)
        starts, _ = self._starts(flat, words)
        count = np.count_nonzero(~self._special[flat[words]])
        return float(np.count_nonzero(self._is_foreign[starts]) / count) if count else 0.0


def _joined(sentences: Sequence[Integers]) -> tuple[Integers, npt.NDArray[np.bool_], Integers]:
    """Sentences one after the other, where each begins, and their lengths."""
    lengths = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
    flat = np.concatenate([np.zeros(0, dtype=np.int64), *sentences])
    is_sentence = np.zeros(len(flat) + 1, dtype=bool)
    is_sentence[np.cumsum(lengths) - lengths] = True
    return flat, is_sentence[:-1], lengths


def _doubled(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array of twice the length, zeros at the end."""
    return np.concatenate([values, np.zeros_like(values)])
