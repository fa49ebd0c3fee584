"""Pieces of long lines: whole, short enough, and cut where it harms least."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.data.odd_lines import split_long

words = st.sampled_from(["a", "b@@", "c", "d."])


@given(st.lists(words, max_size=60), st.integers(1, 20))
def test_pieces_are_the_sentence_and_short_enough(sentence: list[str], limit: int) -> None:
    pieces = split_long(sentence, limit)
    assert [word for piece in pieces for word in piece] == sentence
    assert all(1 <= len(piece) <= limit for piece in pieces)


def test_pieces_end_after_sentences_else_between_words_else_anywhere() -> None:
    assert split_long("a b c . d e f g".split(), 6) == ["a b c .".split(), "d e f g".split()]
    assert split_long("a b c d@@ e@@ f g".split(), 5) == ["a b c".split(), "d@@ e@@ f g".split()]
    assert split_long("a@@ b@@ c@@ d".split(), 2) == ["a@@ b@@".split(), "c@@ d".split()]


def test_no_piece_is_shorter_than_a_subword() -> None:
    with pytest.raises(ValueError, match="limit 0"):
        split_long(["a"], 0)
