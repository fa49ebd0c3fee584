"""Words of a line from the pieces of its tokens: exact where characters go through, never off the line."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_nmt.data.subwords import SentencePiece, SubwordNmt, Subwords
from admin_nmt.data.text_pipeline import TextPipeline
from admin_nmt.data.tokenization import LineTokenizer
from admin_nmt.data.word_alignment import Words, tokens_of, word_links, words_of_tokens

BPE, RAW = SubwordNmt(Path("codes")), SentencePiece(Path("model"))
chunks = st.text("abcäßÉ", min_size=1, max_size=3)
#: Words, each in its pieces.
split_words = st.lists(st.lists(chunks, min_size=1, max_size=4), max_size=8)
#: A line of text with all that Moses splits off or escapes.
texts = st.text("ab cD.,'\"-&|[]<>!?1 ", max_size=40)
#: With what normalisation and SentencePiece's NFKC change.
odd_texts = st.text("ab  „“”‘’…–—½ﬁ\xa0\u200bＡ１，。<>&%İ\x01", max_size=40)


def pieces_of(words: list[list[str]], subwords: Subwords) -> list[str]:
    if subwords == BPE:
        return [piece for *inner, last in words for piece in (*(p + "@@" for p in inner), last)]
    return [piece for first, *rest in words for piece in ("▁" + first, *rest)]


@pytest.mark.parametrize("subwords", [BPE, RAW])
@given(words=split_words)
def test_pieces_of_either_kind_find_their_word(subwords: Subwords, words: list[list[str]]) -> None:
    tokens, places = tokens_of(pieces_of(words, subwords), subwords)
    assert tokens == ["".join(word) for word in words]
    assert places == [number for number, word in enumerate(words) for _ in word]
    assert words_of_tokens(tokens, " ".join(tokens)) == [(i,) for i in range(len(words))]


def check_monotone(found: list[Words], line: str) -> None:
    """Every token has words of the line, and they do not go back."""
    assert all(words for words in found)
    assert all(a[-1] <= b[-1] and a[0] <= b[0] for a, b in pairwise(found))
    assert {word for words in found for word in words} <= set(range(len(line.split())))


@settings(deadline=None)  # sacremoses is imported in the first example
@given(texts, st.booleans(), st.booleans())
def test_moses_tokens_find_the_word_they_were_split_off(
    line: str, hyphens: bool, lowercase: bool
) -> None:
    tokenizer = LineTokenizer("en", aggressive_hyphens=hyphens, lowercase=lowercase)
    tokens = [tokenizer.plain(token) for token in tokenizer(line).split()]
    found = words_of_tokens(tokens, line)
    assert all(len(words) == 1 for words in found)
    for number, word in enumerate(line.split()):
        made_of = [token for token, words in zip(tokens, found, strict=True) if number in words]
        assert "".join(made_of).lower() == word.lower()


@settings(deadline=None)
@given(odd_texts, st.sampled_from(["de", "fr", "en"]))
def test_normalised_text_stays_on_its_line(line: str, language: str) -> None:
    tokenizer = LineTokenizer(language, normalize=True)
    tokens = [tokenizer.plain(token) for token in tokenizer(line).split()]
    if line.split():
        check_monotone(words_of_tokens(tokens, line), line)


@given(st.lists(chunks, max_size=8), st.lists(chunks, min_size=1, max_size=8))
def test_any_two_texts_go_together(tokens: list[str], words: list[str]) -> None:
    check_monotone(words_of_tokens(tokens, " ".join(words)), " ".join(words))


def test_a_difference_does_not_spread() -> None:
    """A long line whose every fourth word has changed altogether."""
    words = [f"word{number}" for number in range(4000)]
    tokens = [f"#{n}#" if n % 4 == 0 else word for n, word in enumerate(words)]
    found = words_of_tokens(tokens, " ".join(words))
    assert all(found[n] == (n,) for n in range(4000) if n % 4)


def test_escapes_that_subwords_split_are_put_together() -> None:
    pipeline = TextPipeline(LineTokenizer("en"), LineTokenizer("en"), BPE)
    pieces = ["Don", "&a@@", "pos@@", ";t", "@-@", "R", "&@@", "amp;", "D"]
    assert pipeline.target_words(pieces, "Don't - R&D") == [
        (0,), (0,), (0,), (0,), (1,), (2,), (2,), (2,), (2,),
    ]  # fmt: skip


def test_a_token_over_two_words_belongs_to_both() -> None:
    assert words_of_tokens(["123456", "."], "123\xa0456 .") == [(0, 1), (2,)]


@given(st.data())
def test_links_are_those_of_pieces_without_repetition(data: st.DataObject) -> None:
    sides = data.draw(split_words.filter(bool)), data.draw(split_words)
    source, target = ([(n,) for n, word in enumerate(side) for _ in word] for side in sides)
    places = st.lists(st.integers(0, len(source) - 1), min_size=len(target), max_size=len(target))
    attended = data.draw(places)
    links = word_links(attended, source, target)
    assert links == sorted(set(links))
    assert set(links) == {
        (source[place][0], words[0]) for place, words in zip(attended, target, strict=True)
    }
