"""Tokens from the table of words are the bytes of sacremoses, of any text in any language.

The tokens of a line come from tables that other lines have filled, so each property sees the same
tables again and again.
"""

import gzip
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from sacremoses import MosesPunctNormalizer, MosesTokenizer
from sacremoses.corpus import NonbreakingPrefixes

from admin_nmt.data import memory
from admin_nmt.data.normalization import normalize
from admin_nmt.data.tokenization import LineTokenizer, known_languages

#: The languages of the corpora, those with rules of their own for apostrophes, normalisation or CJK.
LANGUAGES = ["de", "en", "fr", "it", "cs", "zh"]
#: All that the rules of sacremoses name, and letters of several scripts and kinds.
CHARACTERS = "aZäß.,'`-\"!?;:%&|<>[](){}@#$/_~*+=5٣²¼½€©…„“”‘’‚´«»–—  \t\xa0\u2028\u200b\xad\x00\x1c\x7fçÉжΣ中カ한हि़्"
BITS = [
    *"., ; : ? ! ' \" ` `` '' .. ... .... ,, ,5 5, 1,000 3.5 .5 5. '5 5's a's s' 's l' l'eau n't O'Neil".split(),
    *"Dr. Mr. No. Nr. z.B. U.S. e.g. a.b. pp. Art. etc. bzw. DOTMULTI DOTDOTMULTI. MULTI .'".split(),
    *"a-b -b a- a--b @-@ &amp; < > a|b [x] http://x.de/a,b a@b.de it's, it's. 'it' (it's) x.' x', ',x".split(),
    " ", "  ", "\t", "\xa0", "\u2028",
]  # fmt: skip
TEXTS = st.one_of(
    st.lists(st.sampled_from(BITS), max_size=8).map(" ".join),
    st.lists(st.sampled_from([*CHARACTERS, *BITS]), max_size=12).map("".join),
    st.text(max_size=10),
)


@cache
def sacremoses(language: str) -> Any:
    return MosesTokenizer(lang=language)


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.sampled_from(LANGUAGES), st.booleans())
def test_tokens_are_those_of_sacremoses(texts: list[str], language: str, hyphens: bool) -> None:
    for line in (*texts, " ".join(texts), ". ".join(texts)):
        expected = sacremoses(language).tokenize(
            line, aggressive_dash_splits=hyphens, return_str=True
        )
        assert LineTokenizer(language, aggressive_hyphens=hyphens)(line) == expected


@pytest.mark.parametrize("language", known_languages())
def test_periods_of_every_language_go_by_the_next_word(language: str) -> None:
    prefixes = [word.split(" ")[0] for word in NonbreakingPrefixes().words(language)]
    tokenizer = LineTokenizer(language)
    for prefix in [*prefixes[:: len(prefixes) // 5 + 1], "x", "3", "a.b", "..", "A"]:
        line = f"{prefix}. b {prefix}. 3 {prefix}. ٣ {prefix}. C {prefix}. (c {prefix}. ä {prefix}."
        for text in (line, line + " "):
            assert tokenizer(text) == sacremoses(language).tokenize(text, return_str=True)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.sampled_from(LANGUAGES))
def test_normalisation_is_that_of_sacremoses(line: str, language: str) -> None:
    expected = MosesPunctNormalizer(lang=language, perl_parity=True).normalize(line)
    assert normalize(line, language) == regex.sub(r"\p{C}", " ", expected)


def test_what_python_can_print_is_no_control_character() -> None:
    printable = "".join(filter(str.isprintable, map(chr, range(0x110000))))
    assert not regex.search(r"\p{C}", printable)


def test_tables_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    table = memory.Memory(lambda key: asked.append(key) or key * 2)
    monkeypatch.setattr(memory, "MAX_ENTRIES", 3)
    assert [table[key] for key in "abcabcd"] == [key * 2 for key in "abcabcd"]
    assert asked == list("abcd") and dict(table) == {"d": "dd"}


@pytest.mark.multi30k
@pytest.mark.parametrize("language", ["de", "en"])
def test_real_text_has_the_tokens_of_sacremoses(language: str) -> None:
    folder = Path(os.environ.get("ADMIN_NMT_MULTI30K", "nowhere"))
    if not folder.is_dir():
        pytest.skip("needs ADMIN_NMT_MULTI30K")
    with gzip.open(folder / f"train.{language}.gz", "rt", encoding="utf-8") as stream:
        lines = stream.read().split("\n")[::10]
    tokenizer = LineTokenizer(language)
    assert [*map(tokenizer, lines)] == [
        sacremoses(language).tokenize(line, return_str=True) for line in lines
    ]
