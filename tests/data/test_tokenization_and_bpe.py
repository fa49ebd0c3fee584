"""Tokens and subwords are those of sacremoses and subword-nmt called directly, line for line."""

import io
import re

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from sacremoses import MosesPunctNormalizer, MosesTokenizer
from subword_nmt import learn_bpe as learn_bpe_module
from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe

from admin_nmt.data import bpe, memory
from admin_nmt.data.tokenization import LineTokenizer, require_known_language
from admin_nmt.errors import UserError

PIECES = """Mr. z.B. 1,000 it's l'eau foo-bar „Hallo“ «\xa0non\xa0» a|b [1] &amp; <seg> ... e.g. 100%
don’t \u200b \xad ÄÖ"""
LINES = st.lists(
    st.sampled_from([*re.split("[ \n]", PIECES), "\u2028", "\t", " "]), max_size=12
).map(" ".join)


@given(LINES, st.sampled_from(["de", "en", "fr"]), st.booleans(), st.booleans(), st.booleans())
def test_tokens_equal_sacremoses_called_directly(line, language, normalize, hyphens, lowercase):
    expected = line
    if normalize:
        expected = MosesPunctNormalizer(lang=language, perl_parity=True).normalize(expected)
        expected = regex.sub(r"\p{C}", " ", expected)
    expected = MosesTokenizer(lang=language).tokenize(
        expected, aggressive_dash_splits=hyphens, return_str=True
    )
    expected = expected.lower() if lowercase else expected
    assert LineTokenizer(language, normalize, hyphens, lowercase)(line) == expected


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("Ein gut-er  Tag\u2014nicht?\r", "Ein gut @-@ er Tag - nicht ?"),
        ("a\u200bb\x07c", "a b c"),  # non-printing characters become spaces, as in Moses' script
        ("R&amp;D", "R &amp; amp ; D"),  # an entity in the file is text, as in fairseq's recipe
    ],
)
def test_what_normalisation_and_hyphen_splitting_do(line, tokens):
    assert LineTokenizer("de", normalize=True, aggressive_hyphens=True)(line) == tokens


def test_languages_without_rules_are_refused_with_a_hint():
    require_known_language("de")
    with pytest.raises(UserError, match=r"no language 'xx' .*--tokenizer-lang xx=en"):
        require_known_language("xx")


CORPUS = [
    line * 2 for line in ("low lower lowest ", "neu neuer neueste  ", "Ä 日本 日本語 lower ")
] * 3


def learned_directly(lines, merges):
    codes = io.StringIO()
    learn_bpe(io.StringIO("".join(line + "\n" for line in lines)), codes, merges)
    return codes.getvalue()


@pytest.mark.parametrize("merges", [1, 7, 1000])
def test_codes_and_subwords_equal_subword_nmt_called_directly(tmp_path, merges):
    path = tmp_path / "codes"
    learned = bpe.learn(bpe.count_words(CORPUS), merges, path)
    expected = learned_directly(CORPUS, merges)
    assert path.read_text(encoding="utf-8") == expected
    assert learned == len(expected.splitlines()) - 1
    theirs = BPE(io.StringIO(expected))
    for line in [*CORPUS, "neuland lowly 日本人", "", " a  b "]:
        assert bpe.split(line, path) == theirs.segment(line)


@given(st.lists(st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1)))
def test_merging_undoes_splitting(codes_path, words):
    line = " ".join(words)
    assert bpe.merge(bpe.split(line, codes_path)) == line


@pytest.fixture(scope="module")
def codes_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "codes"
    bpe.learn(bpe.count_words(CORPUS), 20, path)
    return path


def test_what_a_long_run_remembers_is_bounded(codes_path, monkeypatch):
    monkeypatch.setattr(memory, "MAX_ENTRIES", 100)
    words = bpe._words(codes_path)
    for number in range(1000):
        bpe.split(f"word{number}", codes_path)
        assert len(words) <= 100 and len(bpe.load(codes_path).cache) <= 1


def test_names_of_subword_nmt_are_as_they_were_after_learning(tmp_path):
    before = dict(vars(learn_bpe_module))
    bpe.learn(bpe.count_words(CORPUS), 5, tmp_path / "codes")
    assert vars(learn_bpe_module) == before


def test_running_out_of_pairs_is_told_by_the_number_alone(tmp_path, capsys):
    assert bpe.learn(bpe.count_words(["ein haus am see", "ein haus"]), 100, tmp_path / "codes") == 5
    assert capsys.readouterr() == ("", "")


def test_codes_learned_anew_replace_those_in_memory(tmp_path):
    path = tmp_path / "codes"
    bpe.learn(bpe.count_words(["abab abab"]), 5, path)
    assert bpe.split("xyxy", path) == "x@@ y@@ x@@ y"
    bpe.learn(bpe.count_words(["xyxy xyxy"]), 5, path)
    assert bpe.split("xyxy", path) == "xyxy"


@pytest.mark.parametrize(
    "content",
    [
        b"\x93\x8d\xff\x00",
        b"#version: x\na b\n",
        b"#version:\na b\n",
        b"#version: 0.3\na b\n",
        b"a\n",
    ],
)
def test_a_file_without_codes_is_named(content, tmp_path):
    path = tmp_path / "codes"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"codes does not hold BPE codes of subword-nmt$"):
        bpe.load(path)


def test_text_without_pairs_of_letters_cannot_be_learned_from(tmp_path):
    with pytest.raises(UserError, match="no word of two letters"):
        bpe.learn(bpe.count_words(["a b c"]), 10, tmp_path / "codes")
    with pytest.raises(UserError, match="no two letters of the training text meet twice"):
        bpe.learn(bpe.count_words(["abc def"]), 10, tmp_path / "codes")
    assert list(tmp_path.iterdir()) == []
