"""Sentences split anew: the same words, known pieces, drawn by position and by nothing else."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_nmt.data import bpe, resegmenting
from admin_nmt.data.resegmenting import WordSampler, sentence_keys
from admin_nmt.data.segmentations import MergeDropout
from admin_nmt.data.subwords import SubwordNmt
from tests.support.segmentations import DRAWS, TEXT, agree, distribution
from tests.support.words import WORDS

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
END, UNKNOWN = 2, 3
DROPOUT = 0.4


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> SubwordNmt:
    path = tmp_path_factory.mktemp("codes") / "codes"
    bpe.learn(bpe.count_words(TEXT), 45, path)
    return SubwordNmt(path)


def all_pieces(codes: SubwordNmt) -> list[str]:
    """All that can become of the words, and without chance of the text."""
    process = MergeDropout(codes.path, DROPOUT)
    words = {*WORDS, *" ".join(TEXT).split()}
    return sorted({p for word in words for pieces in distribution(process, word) for p in pieces})


@pytest.fixture(scope="module")
def symbols(codes: SubwordNmt) -> list[str]:
    return SPECIAL + all_pieces(codes)


@pytest.fixture(scope="module")
def sampler(codes: SubwordNmt, symbols: list[str]) -> WordSampler:
    return make(codes, symbols)


def make(codes: SubwordNmt, symbols: list[str]) -> WordSampler:
    return WordSampler(MergeDropout(codes.path, DROPOUT), codes, symbols, len(SPECIAL), UNKNOWN)


def encoded(line: str, symbols: list[str]) -> np.ndarray:
    place = {symbol: number for number, symbol in enumerate(symbols)}
    return np.array([*(place.get(piece, UNKNOWN) for piece in line.split()), END], dtype=np.int64)


def keys(count: int, first: int = 0) -> np.ndarray:
    return sentence_keys(1, 1, 0, np.arange(first, first + count))


def test_words_are_drawn_as_often_as_they_should_be(
    codes: SubwordNmt, symbols: list[str], sampler: WordSampler
) -> None:
    for word in WORDS:
        sentence = encoded(codes.split(word), symbols)
        drawn = sampler.resegment([sentence] * DRAWS, keys(DRAWS))
        assert all(pieces[-1] == END for pieces in drawn)
        expected = distribution(MergeDropout(codes.path, DROPOUT), word)
        agree(expected, ([symbols[n] for n in pieces[:-1]] for pieces in drawn))


def test_draws_of_neighbours_are_independent(
    codes: SubwordNmt, symbols: list[str], sampler: WordSampler
) -> None:
    """Of places in a sentence, of sentences, epochs and sides: pairs are as frequent as they should be."""
    word = codes.split("lowest")
    sentence = encoded(f"{word} {word}", symbols)

    def first_words(draws: list[np.ndarray], index: int = 0) -> list[tuple[str, ...]]:
        texts = (" ".join(symbols[n] for n in pieces[:-1]) for pieces in draws)
        return [tuple(text.replace("@@ ", "@@~").split()[index].split("~")) for text in texts]

    numbers = np.arange(DRAWS)
    drawn = sampler.resegment([sentence] * DRAWS, sentence_keys(1, 1, 0, numbers))
    others = {
        "place": first_words(drawn, 1),
        "sentence": first_words(sampler.resegment([sentence] * DRAWS, keys(DRAWS, 1))),
    }
    for name, arguments in {"epoch": (1, 2, 0), "side": (1, 1, 1), "seed": (2, 1, 0)}.items():
        other = sampler.resegment([sentence] * DRAWS, sentence_keys(*arguments, numbers))
        others[name] = first_words(other)
    expected = distribution(MergeDropout(codes.path, DROPOUT), "lowest")
    both = {(*a, "|", *b): p * q for a, p in expected.items() for b, q in expected.items()}
    for drawn_beside in others.values():
        agree(both, ((*a, "|", *b) for a, b in zip(first_words(drawn), drawn_beside, strict=True)))


lines = st.lists(
    st.lists(st.sampled_from([*WORDS, "qqq", "@@"]), max_size=6), min_size=1, max_size=5
)


@given(lines, st.sets(st.integers(0, 400)), st.integers(0, 2**63))
@settings(deadline=None)
def test_words_stay_and_no_piece_becomes_unknown(
    codes: SubwordNmt, symbols: list[str], text: list[list[str]], gone: set[int], seed: int
) -> None:
    """With any dictionary that lacks pieces."""
    kept = SPECIAL + [s for n, s in enumerate(symbols[len(SPECIAL) :]) if n not in gone]
    sentences = [encoded(codes.split(" ".join(line)), kept) for line in text]
    sampler = make(codes, kept)
    drawn = sampler.resegment(sentences, sentence_keys(seed, 3, 1, np.arange(len(text))))
    for old, new in zip(sentences, drawn, strict=True):
        assert Counter(new)[UNKNOWN] == Counter(old)[UNKNOWN]
        before, after = (" ".join(kept[n] for n in sentence) for sentence in (old, new))
        assert bpe.merge(after) == bpe.merge(before)


def test_a_draw_depends_on_its_sentence_alone(
    codes: SubwordNmt, symbols: list[str], sampler: WordSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the batch, nor on what was drawn or forgotten before."""
    sentences = [encoded(codes.split(line), symbols) for line in TEXT * 10]
    together = sampler.resegment(sentences, keys(len(sentences)))
    assert any(a.tolist() != b.tolist() for a, b in zip(together, sentences, strict=True))
    monkeypatch.setattr(resegmenting, "MAX_NODES", 50)
    fresh = make(codes, symbols)
    for number in reversed(range(len(sentences))):
        (alone,) = fresh.resegment([sentences[number]], keys(1, number))
        assert alone.tolist() == together[number].tolist()
    assert len(fresh._states) < 300


def test_a_sentence_that_would_be_too_long_stays(
    codes: SubwordNmt, symbols: list[str], sampler: WordSampler
) -> None:
    sentences = [encoded(codes.split(line), symbols) for line in TEXT]
    free = sampler.resegment(sentences, keys(len(sentences)))
    limit = sorted(map(len, free))[len(free) // 2]
    held = sampler.resegment(sentences, keys(len(sentences)), limit)
    assert any(len(new) > limit for new in free)
    for old, new, found in zip(sentences, free, held, strict=True):
        assert found.tolist() == (new if len(new) <= limit else old).tolist()


def test_what_is_no_whole_word_of_these_codes_stays(
    codes: SubwordNmt, symbols: list[str], sampler: WordSampler
) -> None:
    cut = encoded(codes.split("thehouse").rsplit(" ", 1)[0], symbols)  # its last piece is missing
    letters = encoded("l@@ o@@ w@@ e@@ s@@ t", symbols)
    empty = np.array([END])
    none = np.array([], dtype=np.int64)
    odd = [cut, empty, letters, none, np.array([0, UNKNOWN, UNKNOWN, 1, END])]
    for number in range(20):
        drawn = sampler.resegment(odd, keys(len(odd), 5 * number))
        assert [new.tolist() for new in drawn] == [old.tolist() for old in odd]
    own = encoded(codes.split("lowest lowest lower"), symbols)
    assert sampler.share_of_foreign_words([own, empty]) == 0
    assert sampler.share_of_foreign_words([own, letters, empty]) == 1 / 4
    assert sampler.share_of_foreign_words([empty]) == 0
