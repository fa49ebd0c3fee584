"""Contracts of COMET: its own figure times 100, averaged over references; nothing is downloaded."""

import hashlib
import json
import os
import sys

import pytest

from admin_nmt.cli.main import main
from admin_nmt.errors import UserError
from admin_nmt.evaluation.comet import comet_score, require_comet


def test_the_score_is_the_mean_over_sentences_and_references(comet_model):
    # Of source and reference words the translation has: 2 of 3, 1 of 2; then 1 of 3, 2 of 2.
    references = [["b c", "x"], ["c d", "e"]]
    score = comet_score(comet_model, ["a", "e"], ["a b", "e"], references, cpu=True)
    assert score.score == pytest.approx(100 * (2 / 3 + 1 / 2 + 1 / 3 + 1) / 4)
    assert score.name == "COMET"
    digest = hashlib.sha256(b"weights").hexdigest()[:12]
    assert f"nrefs:2|case:mixed|model:small-model|sha256:{digest}|" in score.signature
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_the_bar_of_comet(comet_model, monkeypatch, terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    comet_score(comet_model, ["a"], ["a"], [["a"]], cpu=True)
    assert sys.modules["comet"].shown == [terminal]


def test_the_command_scores_with_the_sources(comet_model, tmp_path, capsys):
    texts = {"src": "a\n", "hyp": "a b\n", "ref": "b c\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / name) for name in ("hyp", "ref")]
    comet = ["--comet", str(comet_model / "checkpoints" / "model.ckpt"), "--cpu"]
    assert main(["score", *files, *comet, "--sources", str(tmp_path / "src"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert [score["name"] for score in scores] == ["BLEU", "chrF2", "chrF2++", "TER", "COMET"]
    assert scores[-1]["score"] == pytest.approx(200 / 3)

    assert main(["score", *files, *comet]) == 2
    assert "--comet DIR and --sources SRC need each other" in capsys.readouterr().err
    (tmp_path / "src").write_text("a\nb\n")
    assert main(["score", *files, *comet, "--sources", str(tmp_path / "src")]) == 1
    assert f"hyp has 1, {tmp_path / 'src'} has 2" in capsys.readouterr().err


def test_models_that_are_not_there_are_refused_by_file(comet_model, tmp_path):
    with pytest.raises(UserError, match=r"--comet .*/none: .*/none is missing; give the folder of"):
        require_comet(tmp_path / "none")
    (comet_model / "hparams.yaml").unlink()
    with pytest.raises(UserError, match=r"small-model/hparams.yaml is missing"):
        require_comet(comet_model)


def test_without_the_package_it_is_asked_for(comet_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "comet", None)  # what import makes of a missing module
    with pytest.raises(UserError, match=r"comet cannot be imported .*; pip install 'unbabel-comet"):
        require_comet(comet_model)


def test_what_comet_cannot_load_is_one_line(comet_model, monkeypatch):
    def load_from_checkpoint(checkpoint_path, local_files_only=False):
        raise OSError("xlm-roberta-large is not\n in the cache")

    monkeypatch.setattr(sys.modules["comet"], "load_from_checkpoint", load_from_checkpoint)
    with pytest.raises(UserError, match=r"COMET cannot load .*: xlm-roberta-large is not in the"):
        comet_score(comet_model, ["a"], ["a"], [["a"]])
