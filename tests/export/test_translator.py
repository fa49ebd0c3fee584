"""Order, batches, long and empty lines: with an engine that reverses the subwords of a sentence."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.data.odd_lines import SHOWN_WARNINGS
from admin_nmt.errors import UsageError
from admin_nmt.evaluation.decoding import SearchOptions
from admin_nmt.export.ctranslate2_backend import CTranslate2Backend
from admin_nmt.export.search import Alignment, Hypothesis, Sampling, Search, Sentence
from admin_nmt.export.translator import Translation, Translator, batch_by_tokens
from admin_nmt.search.limits import output_limit


class Reversal:
    """An engine whose k-th best hypothesis ends with k, which attends to the first word; it remembers its
    batches."""

    max_source = 6

    def __init__(self) -> None:
        self.batches: list[list[Sentence]] = []
        self.seeds: list[int] = []
        self.required: list[Alignment] = []

    def seed(self, seed: int) -> None:
        self.seeds.append(seed)

    def require_alignment(self, alignment: Alignment) -> None:
        self.required.append(alignment)

    def translate(
        self, batches: Iterable[list[Sentence]], search: Search
    ) -> Iterator[list[list[Hypothesis]]]:
        for batch in batches:
            self.batches.append(batch)
            yield [
                [
                    Hypothesis([*sentence[::-1], str(k)], -k, [*range(len(sentence))[::-1], 0])
                    for k in range(search.nbest)
                ]
                for sentence in batch
            ]


class Words:
    """Words are subwords, whatever they look like."""

    def encode(self, line: str) -> str:
        return line

    def decode(self, line: str) -> str:
        return line

    def source_words(self, pieces: Sequence[str], line: str) -> list[tuple[int, ...]]:
        assert line.split() == list(pieces)
        return [(index,) for index in range(len(pieces))]

    target_words = source_words


words = st.sampled_from(["a", "b@@", "c", "d."])
lines_of_words = st.lists(st.lists(words, max_size=6).map(" ".join), max_size=30)


@given(lines_of_words, st.integers(1, 40), st.integers(1, 50))
def test_every_line_gets_its_own_translation_in_order(
    lines: list[str], batch_tokens: int, chunk_lines: int
) -> None:
    translator = Translator(Reversal(), Words(), batch_tokens)
    done: list[int] = []
    results = translator.stream(lines, chunk_lines=chunk_lines, done=done.append)
    found = [found[0].text for found in results]
    assert sum(done) == len(lines)
    assert found == [" ".join([*line.split()[::-1], "0"]) if line else "" for line in lines]


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 60))
def test_batches_hold_at_most_so_many_tokens(lengths: list[int], max_tokens: int) -> None:
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches = list(batch_by_tokens(order, lengths, max_tokens))
    assert [index for batch in batches for index in batch] == order
    for batch in batches:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert padded <= max_tokens or len(batch) == 1


def test_sentences_of_one_length_share_batches() -> None:
    engine = Reversal()
    Translator(engine, Words(), batch_tokens=5).translate(["a b", "a", "c d", "", "b"])
    assert engine.batches == [[["a", "b"], ["c", "d"]], [["a"], ["b"]]]


def test_no_more_than_one_chunk_is_read_ahead() -> None:
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield "a"

    results = Translator(Reversal(), Words()).stream(lines(), chunk_lines=10)
    for number in range(1, 95):
        next(results)
        assert read <= number + 10


def test_a_long_line_is_translated_in_pieces_and_named(caplog: pytest.LogCaptureFixture) -> None:
    translator = Translator(Reversal(), Words())
    done: list[int] = []
    with caplog.at_level(logging.WARNING):
        results = list(translator.stream(["a", "a b c . d e f g"], done=done.append))
    assert [found[0].text for found in results] == ["a 0", ". c b a 0 g f e d 0"]
    assert sum(done) == 2
    assert "line 2 has 8 subwords, the model reads 6: translated in 2 pieces" in caplog.text


def test_many_long_lines_are_counted_not_listed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Translator(Reversal(), Words()).translate(["a b c d e f g"] * (SHOWN_WARNINGS + 5))
    assert caplog.text.count("translated in 2 pieces") == SHOWN_WARNINGS
    assert "5 more lines: too long" in caplog.text


def test_nbest_are_in_order_with_scores_and_an_empty_line_has_one() -> None:
    found = Translator(Reversal(), Words()).translate_nbest(["a b", " "], nbest=3)
    assert found[0] == [Translation(f"b a {k}", -k) for k in range(3)]
    assert found[1] == [Translation("", 0.0)]


def test_alignments_count_words_of_the_whole_line() -> None:
    """Also where it is translated in pieces, here of 4 and 4 words: 3-0 2-1 1-2 0-3, and so on."""
    engine, alignment = Reversal(), Alignment(layer=2)
    lines = ["a b", "", "a b c . d e f g"]
    search = Search(nbest=2, alignment=alignment)
    short, empty, long = (
        [e.alignment for e in f] for f in Translator(engine, Words()).stream(lines, search)
    )
    assert engine.required == [alignment]
    assert short == [((0, 1), (0, 2), (1, 0))] * 2 and empty == [()]
    first = [(3 - t, t) for t in range(4)] + [(0, 4)]
    second = [(7 - t, 5 + t) for t in range(4)] + [(4, 9)]
    assert long == [tuple(sorted(first + second))] * 2


def test_a_large_beam_writes_no_special_symbols() -> None:
    """The n-th best translation may have them."""
    attention = [[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]]
    result = SimpleNamespace(hypotheses=[["a", "<s>", "b"]], scores=[-1.0], attention=attention)
    started = SimpleNamespace(result=lambda: result)
    assert CTranslate2Backend._result(started, None) == [Hypothesis(["a", "b"], -1.0, [0, 0])]
    result.hypotheses, result.attention = [["<blank>", "a"]], []
    assert CTranslate2Backend._result(started, None) == [Hypothesis(["a"], -1.0)]


def test_samples_are_seeded_once_and_come_in_smaller_batches() -> None:
    engine = Reversal()
    translator = Translator(engine, Words(), batch_tokens=8)
    search = Search(nbest=10, sampling=Sampling(seed=7))
    found = list(translator.stream(["a b"] * 6, search, chunk_lines=3))
    assert [len(samples) for samples in found] == [10] * 6 and engine.seeds == [7]
    assert [len(batch) for batch in engine.batches] == [2, 1, 2, 1]


def test_output_may_be_as_long_as_fairseqs_default() -> None:
    assert output_limit([["a"]], 1023) == 200
    assert output_limit([["a"] * 150, ["b"]], 1023) == 300
    assert output_limit([["a"] * 150], 63) == 63


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"beam": 0}, "--beam 0"),
        ({"nbest": 0}, "--nbest 0"),
        ({"beam": 2, "nbest": 3}, "--nbest 3 needs --beam of at least 3"),
        ({"lenpen": float("nan")}, "--lenpen nan: give a number from -10 to 10"),
        ({"lenpen": float("-inf")}, "--lenpen -inf"),
        ({"lenpen": 1e9}, "--lenpen 1000000000.0"),
    ],
)
def test_impossible_searches_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Search(**options)
    if "nbest" not in options:
        with pytest.raises(UsageError, match=reason):
            SearchOptions(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"layer": -1}, "--alignment-layer -1"), ({"heads": 0}, "--alignment-heads 0")],
)
def test_impossible_alignments_are_refused(options: dict[str, int], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Alignment(**options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"topk": -1}, "--sampling-topk -1"),
        ({"topp": 0.0}, "--sampling-topp 0.0"),
        ({"topp": 1.5}, "--sampling-topp 1.5"),
        ({"temperature": 0.0}, "--temperature 0.0"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**32}, "--seed 4294967296: give a number of at least 0 and at most 4294967295"),
        ({"topk": 5, "topp": 0.5}, "--sampling-topk and --sampling-topp exclude"),
    ],
)
def test_impossible_samplings_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Sampling(**options)
