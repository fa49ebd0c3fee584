"""Contracts: figures equal their definitions and sacreBLEU's own command line."""

import json
import math
import os
import subprocess
import sys

import pytest

from admin_nmt.cli.main import main
from admin_nmt.errors import UsageError, UserError
from admin_nmt.evaluation.scoring import (
    build_metrics,
    compound_split_bleu,
    detokenized_scores,
    tokenized_bleu,
)
from tests.support.programs import BIN


def run(*command, text=None):
    return subprocess.run(
        [str(BIN / command[0]), *map(str, command[1:])],
        input=text, capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip


def test_tokenised_bleu_of_a_case_worked_by_hand():
    # hypothesis: the cat sat on the mat      reference: the cat sat on a mat
    # 1-grams: "the" counts once only (clipped): the cat sat on mat          = 5 of 6
    # 2-grams: "the cat" "cat sat" "sat on"                                  = 3 of 5
    # 3-grams: "the cat sat" "cat sat on"                                    = 2 of 4
    # 4-grams: "the cat sat on"                                              = 1 of 3
    # equal lengths, so no brevity penalty
    expected = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    score = tokenized_bleu(["the cat sat on the mat"], ["the cat sat on a mat"])
    assert score.score == pytest.approx(expected, rel=1e-12)
    assert "tok:none" in score.signature


def test_tokenised_bleu_punishes_brevity_and_pools_counts_over_sentences():
    # All n-grams match; lengths 5 + 4 = 9 against 5 + 6 = 11: exp(1 - 11/9).
    hypotheses, references = ["a b c d e", "f g h i"], ["a b c d e", "f g h i j k"]
    score = tokenized_bleu(hypotheses, references)
    assert score.score == pytest.approx(100 * math.exp(1 - 11 / 9), rel=1e-12)


def test_tokenised_bleu_is_zero_without_a_matching_four_gram():
    assert tokenized_bleu(["a b c x e"], ["a b c d e"]).score == 0.0


def test_tokenised_bleu_leaves_the_given_tokens_alone():
    assert tokenized_bleu(["a , b c d"], ["a, b c d"]).score < 100


def test_compound_split_bleu_counts_the_parts_of_compounds():
    # Split: "a x ##AT##-##AT## y b" against "a x ##AT##-##AT## z b", 5 tokens each:
    # 1-grams 4/5, 2-grams (a x)(x AT) 2/4, 3-grams (a x AT) 1/3, 4-grams 0: so lengthen both.
    hypothesis, reference = "q a x-y b", "q a x-z b"
    # 6 tokens: 5/6, 3/5 (q a)(a x)(x AT), 2/4 (q a x)(a x AT), 1/3 (q a x AT)
    expected = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    score = compound_split_bleu([hypothesis], [reference])
    assert score.score == pytest.approx(expected, rel=1e-12)
    assert score.signature.endswith("|compounds:split")
    assert tokenized_bleu([hypothesis], [reference]).score == 0.0


def test_lowercase_ignores_case_and_says_so():
    hypotheses, references = ["the cat sat down here"], ["The Cat sat down Here"]
    mixed = detokenized_scores(hypotheses, references)
    lower = detokenized_scores(hypotheses, references, lowercase=True)
    assert mixed[0].score < 100 and "case:mixed" in mixed[0].signature
    assert [score.score for score in lower] == pytest.approx([100, 100, 100, 0])
    assert all("case:lc" in score.signature for score in lower)


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(UsageError, match=r"--tokenize nonsense.*13a"):
        build_metrics(tokenize="nonsense")
    with pytest.raises(UsageError, match=r"unknown metric rouge.*bleu, chrf, chrf\+\+, ter"):
        build_metrics(["rouge"])


def test_missing_tokeniser_support_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "MeCab", None)  # as where it is not installed
    for module in [name for name in sys.modules if name.endswith("tokenizer_ja_mecab")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(UserError, match=r"--tokenize ja-mecab cannot be used here: [^\n]+$"):
        build_metrics(tokenize="ja-mecab")
    with pytest.raises(UserError, match=r"--tokenize \(the default for ja\) cannot be used here"):
        build_metrics(target="ja")


def test_the_tokeniser_is_that_of_the_target_language():
    def bleu(**options):
        return detokenized_scores(["我 喜欢 红色的花。"], ["我喜欢红色的花。"], **options)[0]

    assert bleu(target="zh").score > 99 and "tok:zh" in bleu(target="zh").signature
    for region in ("zh_CN", "zh-cn", "ZH"):
        assert "tok:zh" in bleu(target=region).signature
    assert bleu().score == 0 and "tok:13a" in bleu(target="de").signature
    assert "tok:char" in bleu(target="zh", tokenize="char").signature


def sacrebleu(references, hypotheses, *options):
    """What its command prints: a list of scores."""
    command = ["sacrebleu", *references, "-i", hypotheses, "-f", "json", "-w", "12", *options]
    found = json.loads(run(*command).stdout)
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("count", [1, 2])
def test_score_command_equals_the_sacrebleu_command(text_files, two_references, count, capsys):
    hypotheses, references = text_files[0], two_references[:count]
    theirs = sacrebleu(references, hypotheses, "-m", "bleu", "chrf", "ter")
    theirs += sacrebleu(references, hypotheses, "-m", "chrf", "--chrf-word-order", 2)
    assert main(["score", str(hypotheses), *map(str, references), "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert [ours["references"], *ours["more_references"]] == list(map(str, references))
    our_scores = {score["name"]: score for score in ours["scores"]}
    for score in theirs:
        mine = our_scores.pop(score["name"])
        assert mine["score"] == pytest.approx(score["score"], abs=1e-9)
        assert mine["signature"] == score["signature"] and f"nrefs:{count}|" in mine["signature"]
    assert our_scores == {}


def test_references_of_different_lengths_are_refused_with_both_names(text_files, tmp_path, capsys):
    hypotheses, _, references = text_files
    (tmp_path / "short.txt").write_text("a\n")
    assert main(["score", str(hypotheses), str(references), str(tmp_path / "short.txt")]) == 1
    assert f"{references} has 40, {tmp_path / 'short.txt'} has 1;" in capsys.readouterr().err


def test_score_command_reads_standard_input_and_refuses_unequal_counts(text_files):
    hypotheses, _, references = text_files
    lines = hypotheses.read_text().splitlines()
    result = run("admin-nmt", "score", "-", references, text="\n".join(lines[:-1]))
    assert result.returncode == 1
    assert result.stderr.strip() == (
        f"admin-nmt score: error: unequal numbers of lines: - has {len(lines) - 1}, {references} "
        f"has {len(lines)}; give files that are parallel line by line"
    )
    result = run("admin-nmt", "score", "-", references, text="\n".join(lines))
    assert result.returncode == 0 and "BLEU" in result.stdout and "version:" in result.stdout
