"""Contracts: utilities are sacreBLEU's sentence scores, the choice is that of the definition."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from admin_nmt.cli.main import main
from admin_nmt.errors import UserError
from admin_nmt.evaluation.mbr import (
    UTILITIES,
    NBest,
    choose,
    count_lists,
    mbr,
    posterior,
    read_nbest,
)
from tests.reference.mbr import expected_utilities

METRICS = {"chrf": CHRF(), "bleu": BLEU(effective_order=True)}
words = st.sampled_from(["a", "ab", "aab", "Haus", "ß,", ".", "a-b"])
texts = st.lists(words, max_size=9).map(" ".join)


@pytest.mark.parametrize("name", UTILITIES)
@settings(max_examples=30, deadline=None)
@given(hypotheses=st.lists(texts, min_size=1, max_size=5))
def test_utilities_are_the_sentence_scores_of_sacrebleu(name, hypotheses):
    expected = [
        [METRICS[name].sentence_score(taken, [right]).score for right in hypotheses]
        for taken in hypotheses
    ]
    np.testing.assert_allclose(UTILITIES[name](hypotheses), expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("name", UTILITIES)
@settings(max_examples=30, deadline=None)
@given(
    weighted=st.lists(st.tuples(texts, st.integers(1, 9)), min_size=1, max_size=5),
    repeated=st.integers(1, 2),
)
def test_the_choice_has_the_highest_expected_utility(name, weighted, repeated):
    hypotheses, weights = zip(*weighted * repeated, strict=True)
    expected = expected_utilities(hypotheses, METRICS[name], weights)
    chosen = mbr(hypotheses, UTILITIES[name], weights)
    assert expected[chosen] == pytest.approx(max(expected))
    assert chosen == hypotheses.index(hypotheses[chosen])
    equal = [1] * len(hypotheses)
    expected = expected_utilities(hypotheses, METRICS[name], equal)
    assert expected[mbr(hypotheses, UTILITIES[name])] == pytest.approx(max(expected))


def test_copies_count_as_often_as_they_are_drawn():
    assert mbr(["x y", "the dog", "the dogs"], UTILITIES["chrf"]) == 2
    assert mbr(["the dog", "x y", "the dogs", "x y", "x y"], UTILITIES["chrf"]) == 1


def test_posterior_weights_are_ratios_of_probabilities():
    assert posterior([-1.0, -2.0, -1000.0], 0.5) == pytest.approx([1, math.exp(-2), 0])
    nbest = NBest(["x y", "the dog", "the dogs"], [-0.1, -3.0, -3.0])
    assert choose(nbest) == "the dogs" and choose(nbest, temperature=0.5) == "x y"


def test_lists_are_read_as_translate_writes_them():
    lines = ["1\t-0.5\ta\tb", "1\t-0.75\tc", "2\t0.0000\t", "3\t-1e-3\td"]
    assert list(read_nbest(lines)) == [
        NBest(["a\tb", "c"], [-0.5, -0.75]), NBest([""], [0.0]), NBest(["d"], [-0.001]),
    ]  # fmt: skip
    assert list(read_nbest([])) == []


def test_lists_are_counted_from_where_a_file_stands():
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    text = b"".join(b"%d\t-1.0\ta %d\n" % (n // 2 + 1, n) for n in range(2 * 8000))
    stream = io.BytesIO(text)
    stream.readline()
    assert count_lists(stream) == 8000
    assert stream.readline() == b"1\t-1.0\ta 1\n"
    assert count_lists(io.BytesIO(b"1\t0\t\r\n2\t0\t")) == 2
    for nothing in (io.BytesIO(b""), io.BytesIO(b"a translation\n"), Pipe(text)):
        assert count_lists(nothing) is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a translation"], r"line 1 of the n-best lists is not 'number, tab, score, tab"),
        (["1\t-1.0\ta", "2\tbest\tb"], r"line 2 of the n-best lists is not"),
        (["2\t-1.0\ta"], r"line 1 of the n-best lists is of sentence 2, expected 1"),
        (["1\t-1.0\ta", "3\t-1.0\tb"], r"line 2 .* is of sentence 3, expected 1"),
        (["1\t-1.0\ta", "2\t-1.0\tb", "1\t-2.0\tc"], r"line 3 .* of sentence 1, expected 2"),
    ],
)
def test_other_lists_are_refused_by_line(lines, message):
    with pytest.raises(UserError, match=message):
        list(read_nbest(lines))


def test_the_command_writes_one_line_for_each_list(tmp_path, capsysbinary):
    path = tmp_path / "nbest"
    path.write_text("1\t-0.1\tx y\n1\t-3\tthe dog\n1\t-3\tthe dogs\n2\t0\t\n3\t-1\tgrün\n")
    assert main(["mbr", str(path)]) == 0
    assert capsysbinary.readouterr().out.decode() == "the dogs\n\ngrün\n"
    output = ["--output", str(tmp_path / "out")]
    assert main(["mbr", str(path), *output, "--utility", "bleu", "--temperature", "0.5"]) == 0
    assert (tmp_path / "out").read_text(encoding="utf-8") == "x y\n\ngrün\n"
    assert main(["mbr", str(path), *output]) == 1
    for temperature in ("0", "nan"):
        assert main(["mbr", str(path), *output, "--force", "--temperature", temperature]) == 2
    assert main(["mbr", str(tmp_path / "none")]) == 1
    errors = capsysbinary.readouterr().err.decode()
    assert "exists: give another name, or --force" in errors
    assert "--temperature 0.0: give a number above 0" in errors
    assert "cannot read the n-best lists" in errors
