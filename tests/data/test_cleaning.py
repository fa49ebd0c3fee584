"""Cleaning equals the definition of Moses' clean-corpus-n.perl."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.data.clean import clean_pair, squeeze
from admin_nmt.data.corpora import Cleaning

PERL_SPACES = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u2028\u2029\u202f\u205f\u3000"
)
NO_SPACES = "\x1c\x1f\u200b\ufeff\u180e"  # the first two are white space to Python, not to Perl
WORDS = st.sampled_from(["a", "bb", "Ä", "x" * 1000, "x" * 1001, "y" * 600 + "|" + "y" * 600])
LINES = st.lists(WORDS | st.sampled_from(PERL_SPACES + NO_SPACES + " " * 20), max_size=20).map(
    "".join
)


def words_by_definition(line: str) -> list[str]:
    """Character by character: maximal runs without Perl white space."""
    words, current = [], ""
    for character in line + " ":
        if character in PERL_SPACES:
            words += [current] if current else []
            current = ""
        else:
            current += character
    return words


def kept_by_definition(a: list[str], b: list[str], ratio: float, low: int, high: int) -> bool:
    if not a or not b:
        return False
    if len(a) < low or len(b) < low or len(a) > high or len(b) > high:
        return False
    if len(a) / len(b) > ratio or len(b) / len(a) > ratio:
        return False
    return all(len(factor) <= 1000 for word in a + b for factor in word.split("|"))


@given(
    LINES,
    LINES,
    st.sampled_from([1.0, 1.5, 2.0, 9.0]),
    st.integers(1, 4),
    st.integers(4, 8),
)
def test_cleaning_equals_the_moses_definition(a, b, ratio, low, high):
    words = words_by_definition(a), words_by_definition(b)
    kept = kept_by_definition(*words, ratio, low, high)
    expected = tuple(" ".join(side) for side in words) if kept else None
    assert clean_pair(a, b, Cleaning("before_bpe", ratio, low, high)) == expected


@pytest.mark.parametrize(
    ("source", "target", "kept"),
    [
        ("a b c", "x y", True),  # 1.5 is not over 1.5
        ("a b c d", "x y", False),
        ("x y", "a b c d", False),
        ("", "x", False),
        ("   ", "x", False),
        (" ".join("a" * 175), " ".join("b" * 175), True),
        (" ".join("a" * 176), " ".join("b" * 175), False),
    ],
)
def test_limits_are_inclusive(source, target, kept):
    result = clean_pair(source, target, Cleaning("before_bpe", 1.5, 1, 175))
    assert (result is not None) == kept


@given(st.text())
def test_squeezing_twice_changes_nothing_more(line):
    assert squeeze(squeeze(line)) == squeeze(line)
