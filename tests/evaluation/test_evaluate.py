"""Contracts: a real model is translated with, scored and kept; bad input ends in one line."""

import json
import os
import shutil

import pytest

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.errors import UserError
from admin_nmt.evaluation.decoding import SearchOptions
from admin_nmt.evaluation.evaluate import evaluate, evaluation_report, score_all
from admin_nmt.evaluation.generation import Translations
from admin_nmt.evaluation.preparation import Preparation, read_preparation
from admin_nmt.evaluation.scoring import detokenized_scores
from admin_nmt.evaluation.text import read_lines
from tests.support.in_process import run_fairseq
from tests.support.programs import run_program


def run(*command):
    return run_program("admin-nmt", "evaluate", *command, check=False)


@pytest.fixture(scope="session")
def prepared_data(tiny_run, tmp_path_factory):
    """The data folder, lower-cased for all we know, with a raw reference named in it."""
    data = tmp_path_factory.mktemp("prepared") / "data-bin"
    shutil.copytree(tiny_run / "data-bin", data)
    shutil.copy(tiny_run / "raw.en", data / "raw.test.en")
    (data / "raw.test.de").write_text("ein Satz\n" * 20)
    files = {"de": "raw.test.de", "en": "raw.test.en"}
    preparation = {"lowercase": True, "raw": {"test": files}}
    (data / "preparation.json").write_text(json.dumps(preparation))
    return data


def test_command_translates_all_sentences_scores_and_keeps_them(tiny_run, tmp_path):
    checkpoint = tiny_run / "checkpoints" / "checkpoint2.pt"
    output = tmp_path / "new" / "result"
    result = run(tiny_run / "data-bin", "--path", checkpoint, "--cpu", "--output", output)
    assert result.returncode == 0, result.stderr
    assert "binarised reference, detokenised" in result.stdout

    texts = {path.name: read_lines(path) for path in output.iterdir() if path.suffix != ".json"}
    assert {name: len(lines) for name, lines in texts.items()} == dict.fromkeys(
        ["hypotheses.tok", "hypotheses.detok", "references.tok", "references.detok", "sources.detok"], 20,
    )  # fmt: skip
    german = (tiny_run / "test.de").read_text().replace("@@ ", "").splitlines()
    assert texts["sources.detok"] == [line.replace(" .", ".") for line in german]
    tokenised = (tiny_run / "test.en").read_text().replace("@@ ", "").splitlines()
    assert texts["references.tok"] == tokenised  # all of them, in the order of the corpus
    assert texts["references.detok"] == [line.replace(" .", ".") for line in tokenised]

    scores = json.loads((output / "scores.json").read_text())
    assert scores["num_sentences"] == 20 and scores["beam"] == 5 and scores["target"] == "en"
    expected = detokenized_scores(texts["hypotheses.detok"], texts["references.detok"])
    for row, score in zip(scores["scores"], expected, strict=False):
        assert (row["name"], row["score"]) == (score.name, score.score)
        assert row["signature"] in result.stdout
    assert len(scores["scores"]) == 6 and scores["more_references"] == []


def test_hypotheses_are_those_of_fairseq_sentence_by_sentence(tiny_run, tmp_path, capsys):
    checkpoint = tiny_run / "checkpoints" / "checkpoint1.pt"
    result = evaluate(tiny_run / "data-bin", str(checkpoint), subset="test", output=tmp_path)
    capsys.readouterr()
    run_fairseq(
        "fairseq-interactive", tiny_run / "data-bin", "--path", checkpoint, "--cpu",
        "--input", tiny_run / "test.de",
    )  # fmt: skip
    output = capsys.readouterr().out
    theirs = [line.split("\t")[2] for line in output.splitlines() if line.startswith("H-")]
    ours = read_lines(result.directory / "hypotheses.tok")
    assert ours == [(line + " ").replace("@@ ", "").rstrip() for line in theirs]


def test_prepared_folder_gives_the_raw_reference_and_case(prepared_data, tiny_run, monkeypatch):
    raw = read_lines(prepared_data / "raw.test.en")
    assert any("House" in line for line in raw)
    pieces = (tiny_run / "test.en").read_text().splitlines()
    monkeypatch.setattr(
        "admin_nmt.evaluation.evaluate.translate",
        lambda *args: Translations(pieces, pieces, ["x"] * len(pieces)),
    )
    checkpoint = tiny_run / "checkpoints" / "checkpoint1.pt"
    result = evaluate(prepared_data, str(checkpoint))
    assert result.directory == checkpoint.with_name("checkpoint1.test.de-en")
    assert result.reference == str(prepared_data / "raw.test.en") and result.lowercase
    assert [score.score for score in result.scores] == pytest.approx([100, 100, 100, 0, 100, 100])
    assert all("case:lc" in score.signature for score in result.scores[:4])
    assert "case:lc" in evaluation_report(result)
    assert read_lines(result.directory / "references.detok") == raw
    source = read_lines(result.directory / "sources.detok")
    assert source == read_lines(prepared_data / "raw.test.de")


def test_results_of_another_evaluation_are_not_replaced(
    prepared_data, tiny_run, tmp_path, monkeypatch
):
    """Models that translate together have a folder of their own; another data folder or search needs
    `--output`. The same evaluation is made anew, also with another reference."""
    pieces = (tiny_run / "test.en").read_text().splitlines()
    monkeypatch.setattr(
        "admin_nmt.evaluation.evaluate.translate",
        lambda *args: Translations(pieces, pieces, ["x"] * len(pieces)),
    )
    run = tmp_path / "run"
    run.mkdir()
    for number in (1, 2):
        shutil.copy(tiny_run / "checkpoints" / f"checkpoint{number}.pt", run)
    first, second = (str(run / f"checkpoint{number}.pt") for number in (1, 2))
    one = evaluate(prepared_data, first).directory
    both = evaluate(prepared_data, f"{first}:{second}").directory
    assert (one.name, both.name) == (
        "checkpoint1.test.de-en", "checkpoint1+checkpoint2.test.de-en"
    )  # fmt: skip
    kept = (one / "scores.json").read_bytes()
    other_data = shutil.copytree(prepared_data, tmp_path / "data")
    for data, path, options, what in (
        (other_data, first, {}, r"another DATA folder"),
        (prepared_data, first, {"options": SearchOptions(beam=4)}, r"another --beam \(5, now 4\)"),
        (prepared_data, second, {"output": one}, r"another --path"),
    ):
        with pytest.raises(UserError, match=rf"test\.de-en holds an evaluation with {what}"):
            evaluate(data, path, **options)
    assert (one / "scores.json").read_bytes() == kept
    monkeypatch.chdir(run)
    evaluate(
        os.path.relpath(prepared_data), "checkpoint1.pt", options=SearchOptions(max_tokens=100),
        reference=prepared_data / "raw.test.en",
    )  # fmt: skip
    assert (one / "scores.json").read_bytes() != kept


@pytest.fixture
def evaluate_quickly(prepared_data, tiny_run, monkeypatch):
    """`evaluate` without a search: the binarised references are the translation."""
    pieces = (tiny_run / "test.en").read_text().splitlines()
    monkeypatch.setattr(
        "admin_nmt.evaluation.evaluate.translate",
        lambda *args: Translations(pieces, pieces, ["x"] * len(pieces)),
    )
    return evaluate


def test_names_are_compared_by_what_they_mean_where_they_were_given(
    evaluate_quickly, prepared_data, tiny_run, tmp_path, monkeypatch
):
    """The same words in another folder are another model; other words for the same one are not."""
    for name in ("run1", "run2"):
        (tmp_path / name).mkdir()
        shutil.copy(tiny_run / "checkpoints" / "checkpoint1.pt", tmp_path / name)
    shutil.copytree(prepared_data, tmp_path / "data-bin")
    words = ("../data-bin", "checkpoint1.pt")
    monkeypatch.chdir(tmp_path / "run1")
    evaluate_quickly(*words, output="../scores")
    kept = (tmp_path / "scores" / "scores.json").read_bytes()
    assert [json.loads(kept)[name] for name in ("data", "path")] == list(words)
    monkeypatch.chdir(tmp_path / "run2")
    refused = r"another --path \(/.*run1/checkpoint1\.pt, now /.*run2/checkpoint1\.pt\)"
    with pytest.raises(UserError, match=refused):
        evaluate_quickly(*words, output="../scores")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="another --path"):
        evaluate_quickly("data-bin", "run1/checkpoint1.pt:run2/checkpoint1.pt", output="scores")
    assert (tmp_path / "scores" / "scores.json").read_bytes() == kept
    evaluate_quickly("data-bin", "run1/checkpoint1.pt", output="scores")
    assert (tmp_path / "scores" / "scores.json").read_bytes() != kept


def test_a_folder_moved_or_copied_with_its_model_keeps_its_scores_its_own(
    evaluate_quickly, prepared_data, tiny_run, tmp_path
):
    """Data in the folder or elsewhere; files of earlier versions are compared by the names given."""
    for data in ("data-bin", prepared_data):
        old, new, copy = (tmp_path / f"{name}{len(str(data))}" for name in ("old", "new", "copy"))
        shutil.copytree(prepared_data, old / "data-bin")
        for number in (1, 2):
            shutil.copy(tiny_run / "checkpoints" / f"checkpoint{number}.pt", old)
        evaluate_quickly(old / data, str(old / "checkpoint1.pt"), output=old / "scores")
        old.rename(new)
        shutil.copytree(new, copy)
        for folder in (new, copy):
            model, output = str(folder / "checkpoint1.pt"), folder / "scores"
            with pytest.raises(UserError, match="another --path"):
                evaluate_quickly(folder / data, str(folder / "checkpoint2.pt"), output=output)
            evaluate_quickly(folder / data, model, output=output)
    scores = json.loads((output / "scores.json").read_text())
    del scores["places"]
    (output / "scores.json").write_text(json.dumps(scores | {"path": str(old / "checkpoint1.pt")}))
    with pytest.raises(UserError, match="another --path"):
        evaluate_quickly(folder / data, model, output=output)


def test_without_any_reference_the_translation_is_kept_and_one_is_asked_for():
    with pytest.raises(UserError, match=r"give one with --reference"):
        score_all({"hypotheses.detok": ["a"], "hypotheses.tok": ["a"]}, ["x"], lowercase=False)
    texts = {name: ["a b c d e"] for name in ("hypotheses.detok", "references.detok")}
    texts["hypotheses.tok"] = texts["hypotheses.detok"]
    assert [score.name for score in score_all(texts, ["x"], lowercase=False)] == [
        "BLEU", "chrF2", "chrF2++", "TER",
    ]  # fmt: skip


def test_several_references_and_comet(prepared_data, tiny_run, tmp_path, monkeypatch, comet_model):
    """The second reference equals the translation; files of an evaluation with more of them go."""
    pieces = (tiny_run / "test.en").read_text().splitlines()[::-1]
    monkeypatch.setattr(
        "admin_nmt.evaluation.evaluate.translate",
        lambda *args: Translations(pieces, pieces, ["x"] * len(pieces)),
    )
    raw = read_lines(prepared_data / "raw.test.en")
    for name, lines in (("second.txt", raw[::-1]), ("third.txt", ["another text ."] * 20)):
        (tmp_path / name).write_text("\n".join(lines) + "\n")

    def scored(*names):
        further = [tmp_path / name for name in names]
        path = str(tiny_run / "checkpoints" / "checkpoint1.pt")
        output = {"output": tmp_path / "out", "comet": comet_model}
        result = evaluate(prepared_data, path, more_references=further, **output)
        files = {path.name for path in result.directory.glob("references*.detok")}
        return result, {score.name: score for score in result.scores}, files

    _, one, files = scored()
    assert files == {"references.detok"} and one["BLEU"].score < 100
    result, three, files = scored("second.txt", "third.txt")
    assert files == {"references.detok", "references.2.detok", "references.3.detok"}
    assert [three[name].score for name in ("BLEU", "chrF2++")] == pytest.approx([100, 100])
    assert "nrefs:3" in three["TER"].signature and "third.txt" in evaluation_report(result)
    kept = json.loads((result.directory / "scores.json").read_text())
    assert kept["more_references"] == [str(tmp_path / "second.txt"), str(tmp_path / "third.txt")]
    assert kept["scores"][-1]["name"] == "COMET" and 0 < one["COMET"].score < three["COMET"].score
    _, _, files = scored("second.txt")
    assert files == {"references.detok", "references.2.detok"}


def with_longer_vocabulary(tiny_run, tmp_path):
    data = tmp_path / "data-bin"
    shutil.copytree(tiny_run / "data-bin", data)
    with (data / "dict.en.txt").open("a") as stream:
        stream.write("word 1\nother 1\n")
    return data


def test_checkpoint_of_another_vocabulary_is_refused_with_both_sizes(tiny_run, tmp_path):
    data = with_longer_vocabulary(tiny_run, tmp_path)
    path = tiny_run / "checkpoints" / "checkpoint1.pt"
    size = torch_rows(path, "decoder.embed_tokens.weight")
    message = rf"does not fit the vocabulary .* decoder knows {size} types, .*en.txt has {size + 2}"
    with pytest.raises(UserError, match=message):
        evaluate(data, str(path), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def torch_rows(path, name):
    return Checkpoint.open(path).weights[name].shape[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "nothing.pt"}, r"checkpoint not found: nothing.pt"),
        ({"subset": "dev"}, r"no subset dev; --gen-subset can be one of test, train, valid"),
        ({"source": "fr"}, r"no subset test for --source-lang fr"),
        ({"reference": "nothing.txt"}, r"file not found: nothing.txt"),
        ({"reference": "short"}, r"short.txt has 1 lines, subset test of .* has 20"),
        ({"reference": "empty"}, r"empty.txt is empty"),
        ({"more_references": ["nothing.txt"]}, r"file not found: nothing.txt"),
        ({"comet": "nothing"}, r"comet cannot be imported|--comet nothing: nothing is missing"),
        ({"tokenize": "nonsense"}, r"--tokenize nonsense: unknown tokeniser"),
        ({"data": "nowhere"}, r"data folder not found: nowhere"),
    ],
)
def test_bad_input_is_found_before_translating(tiny_run, tmp_path, arguments, message):
    (tmp_path / "short.txt").write_text("one line\n")
    (tmp_path / "empty.txt").touch()
    if arguments.get("reference") in ("short", "empty"):
        arguments = {"reference": tmp_path / f"{arguments['reference']}.txt"}
    given = {"data": tiny_run / "data-bin", "path": tiny_run / "checkpoints" / "checkpoint1.pt"}
    given = given | arguments
    output = tmp_path / "out"
    with pytest.raises(UserError, match=message):
        evaluate(given.pop("data"), str(given.pop("path")), output=output, **given)
    assert not output.exists()


def test_folders_without_preparation_are_taken_as_they_are(tmp_path):
    assert read_preparation(tmp_path) == Preparation(lowercase=False, raw={})


def test_text_is_detokenised_by_the_rules_it_was_tokenised_by(tmp_path):
    """Occitan as French (`--tokenizer-lang oc=fr`), which alone has clitics."""
    content = {"bpe": {"codes": "codes", "separator": "@@"}, "tokenizer_langs": {"oc": "fr"}}
    (tmp_path / "codes").write_text("#version: 0.2\n")
    (tmp_path / "preparation.json").write_text(json.dumps(content))
    found = read_preparation(tmp_path)
    assert found.text(["L&apos; aiga de l&apos; ostal ."], "oc") == ["L'aiga de l'ostal."]
    assert found.text(["the dog &apos;s tail ."], "en") == ["the dog's tail."]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"raw": 5}', '{"tokenizer_langs": "fr"}', '{"raw": {"test": "x"}}']
)
def test_broken_preparation_is_refused_by_name(tmp_path, content):
    (tmp_path / "preparation.json").write_text(content)
    with pytest.raises(UserError, match=r"preparation.json"):
        read_preparation(tmp_path)


@pytest.mark.parametrize("content", [b"one line\n", b"\xff\n" * 20])
def test_a_raw_source_that_does_not_fit_is_found_before_translating(
    prepared_data, tiny_run, tmp_path, monkeypatch, content
):
    data = shutil.copytree(prepared_data, tmp_path / "data")
    (data / "raw.test.de").write_bytes(content)
    monkeypatch.setattr(
        "admin_nmt.evaluation.evaluate.translate", lambda *args: pytest.fail("translated")
    )
    with pytest.raises(UserError, match=r"raw\.test\.de"):
        evaluate(data, str(tiny_run / "checkpoints" / "checkpoint1.pt"), output=tmp_path / "out")
