"""SentencePiece: pieces are the library's own, raw text goes in, and what cannot work is said."""

import io
import json
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.data import bpe, pipeline, sentence_pieces
from admin_nmt.data.corpora import Cleaning, Corpus, Source
from admin_nmt.data.corpus_files import load_corpus
from admin_nmt.data.odd_lines import split_long
from admin_nmt.data.pipeline import prepare
from admin_nmt.data.preparation_record import settings_of
from admin_nmt.data.subwords import SentencePiece
from admin_nmt.data.text_pipeline import TextPipeline
from admin_nmt.data.tokenization import LineTokenizer
from admin_nmt.errors import UserError

LINES = [
    'Der Hund sagt: "Wau, wau!" und läuft.',
    "Die Straße ist lang, nicht wahr?",
    "It's the dog's well-known house (a big one).",
    "犬が走る。猫が寝る。",
] * 5


def learn(path: Path, num_pieces: int = 80, model_type: str = "unigram") -> list[str]:
    """The pieces learned from `LINES`."""
    sentence_pieces.learn(bpe.count_words(LINES), num_pieces, model_type, 1.0, path)
    return pieces_of(path.read_bytes())


def pieces_of(model: bytes) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SentencePiece:
    path = tmp_path_factory.mktemp("pieces") / "sentencepiece.model"
    learn(path)
    return SentencePiece(path)


def test_bpe_pieces_are_those_that_the_text_itself_gives(tmp_path: Path) -> None:
    directly = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=directly, vocab_size=80, model_type="bpe",
        character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    assert learn(tmp_path / "model", model_type="bpe") == pieces_of(directly.getvalue())


@pytest.mark.parametrize("model_type", sentence_pieces.MODEL_TYPES)
def test_learning_again_gives_the_same_bytes(tmp_path: Path, model_type: str) -> None:
    for name in ("a", "b"):
        learn(tmp_path / name, model_type=model_type)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


words = st.text(st.characters(codec="utf-8"), max_size=8)
lines = st.lists(st.one_of(st.sampled_from(" ".join(LINES).split()), words)).map(" ".join)


@given(lines)
def test_pieces_are_the_librarys_and_pass_through_fairseqs_white_space(
    model: SentencePiece, line: str
) -> None:
    raw = LineTokenizer("xx", moses=False)(line)
    pieces = model.split(raw)
    directly = sentencepiece.SentencePieceProcessor(model_file=str(model.path))
    assert pieces.split() == directly.encode(raw, out_type=str)


@given(st.lists(st.sampled_from(" ".join(LINES).split())))
def test_text_comes_back_from_its_pieces(model: SentencePiece, line: list[str]) -> None:
    text = " ".join(line)
    assert model.merge(model.split(text)) == unicodedata.normalize("NFKC", text)


def test_long_text_is_cut_between_words_and_after_full_stops() -> None:
    def cut(line: str, limit: int) -> list[str]:
        return [" ".join(piece) for piece in split_long(line.split(), limit)]

    assert cut("▁a b ▁c d ▁e f", 5) == ["▁a b ▁c d", "▁e f"]
    assert cut("▁a ▁b . ▁c ▁d", 4) == ["▁a ▁b .", "▁c ▁d"]
    assert cut("▁犬 が 走る 。 猫 が 寝る", 6) == ["▁犬 が 走る 。", "猫 が 寝る"]


def test_what_cannot_be_learned_or_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(UserError, match=r"for 3\d pieces, 5 are asked for: more --bpe-tokens, or"):
        sentence_pieces.learn(bpe.count_words(LINES[:2]), 5, "unigram", 1.0, path)
    with pytest.raises(UserError, match="the training text has no words"):
        sentence_pieces.learn(Counter(), 50, "unigram", 1.0, path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"cannot read SentencePiece model .*: No such file"):
        SentencePiece(path).require()
    for content in (b"", b"#version: 0.2\n"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="does not hold a model of SentencePiece"):
            SentencePiece(path).require()


def test_a_small_text_gives_fewer_pieces(tmp_path: Path) -> None:
    assert 30 < len(learn(tmp_path / "model", 5000)) < 1000


RAW = Corpus(
    name="mine",
    languages=("de", "xx"),
    tokenizer_langs=("de", "xx"),  # Moses knows no xx
    sources={name: (Source(name + ".{lang}"),) for name in ("train", "valid", "test")},
    archives={},
    subword="sentencepiece",
    cleaning=Cleaning("after_bpe", ratio=3.0, max_length=20),
    bpe_tokens=60,
)


@pytest.fixture
def files(custom: dict[str, Path]) -> dict[str, Path]:
    return {name.replace(".en", ".xx"): path for name, path in custom.items()}


def read(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def test_a_prepared_folder_holds_pieces_of_raw_text_and_its_model(
    files: dict[str, Path], tmp_path: Path, quick_binarize: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "CHUNK_LINES", 7)
    data = prepare(RAW, tmp_path / "out", workers=2, files=files)
    content = json.loads((data / "preparation.json").read_text())
    assert content["sentencepiece"] == {
        "model": "sentencepiece.model", "model_type": "unigram", "character_coverage": 1.0,
        "pieces_wanted": 60, "pieces": 60,
    }  # fmt: skip
    assert "bpe" not in content and content["versions"]["sentencepiece"]
    assert "sentencepiece.model" in content["outputs"] and not (data / "codes").exists()
    directly = sentencepiece.SentencePieceProcessor(model_file=str(data / "sentencepiece.model"))
    raw = {lang: read(files[f"train.{lang}"]) for lang in RAW.languages}
    pairs = zip(*(directly.encode(raw[lang], out_type=str) for lang in RAW.languages), strict=True)
    kept = [
        pair for pair in pairs
        if min(map(len, pair)) >= 1 and max(map(len, pair)) <= 20
        and max(map(len, pair)) <= 3 * min(map(len, pair))
    ]  # fmt: skip
    assert 10 < len(kept) < len(raw["de"])
    for side, lang in enumerate(RAW.languages):
        assert read(tmp_path / "out/bpe" / f"train.{lang}") == [" ".join(p[side]) for p in kept]
    text = TextPipeline.load(data)
    for line, pieces in zip(
        read(files["test.xx"]), read(tmp_path / "out/bpe/test.xx"), strict=True
    ):
        assert text.subwords.split(text.target(line)) == pieces
        assert text.decode(pieces) == " ".join(unicodedata.normalize("NFKC", line).split())

    prepare(RAW, tmp_path / "again", workers=1, files=files)
    assert (tmp_path / "again/data-bin/preparation.json").read_bytes() == (
        data / "preparation.json"
    ).read_bytes()
    with pytest.raises(
        UserError, match='sentencepiece_model_type is "unigram" there and "bpe" now'
    ):
        settings = replace(RAW.sentencepiece, model_type="bpe")
        prepare(replace(RAW, sentencepiece=settings), tmp_path / "out", workers=1, files=files)


def test_normalisation_and_lower_case_apply_to_raw_text() -> None:
    raw = LineTokenizer("de", normalize=True, lowercase=True, moses=False)
    assert raw("Der „Hund“ –\tHALLO !") == 'der "hund" - hallo !'
    assert raw.undo("der Hund , ja") == "der Hund , ja"


def test_folders_made_before_there_was_a_choice_stay_usable() -> None:
    """Their settings have no name for it."""
    settings = settings_of(load_corpus("multi30k"))
    assert not [name for name in settings if "subword" in name or "sentencepiece" in name]


def test_without_the_package_one_line_says_what_to_install(
    files: dict[str, Path], tmp_path: Path, model: SentencePiece, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence_pieces.load.cache_clear()
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r"cannot be imported .*pip install 'sentencepiece>=0.2'"):
        prepare(RAW, tmp_path / "out", workers=1, files=files)
    assert not (tmp_path / "out/tokenized").exists()
    with pytest.raises(UserError, match="cannot be imported"):
        model.require()
    assert model.merge("▁lo w ▁er") == "low er"  # scoring needs none


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (["--subword", "words"], "subword must be subword-nmt or sentencepiece, not 'words'"),
        (["--sentencepiece-model-type", "bpe"], "--sentencepiece-model-type goes with --subword"),
        (["--subword", "sentencepiece", "--sentencepiece-model-type", "x"], "not 'x'"),
        (["--subword", "sentencepiece", "--sentencepiece-character-coverage", "2"], "not 2.0"),
        (["--subword", "sentencepiece", "--aggressive-hyphens"], "--aggressive-hyphens is about"),
        (["--subword", "sentencepiece", "--tokenizer-lang", "xx=en"], "--tokenizer-lang is about"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    capsys: pytest.CaptureFixture[str], option: list[str], reason: str
) -> None:
    from admin_nmt.cli.main import main

    assert main(["prepare", "multi30k", "--output", "nowhere", *option]) == 2
    assert reason in capsys.readouterr().err


def test_a_corpus_file_chooses_sentencepiece(
    tmp_path: Path,
) -> None:
    text = """
languages: {source: de, target: en}
archives: {a.tgz: {url: "http://localhost/a.tgz"}}
sets:
  train: [{archive: a.tgz, member: "train.{lang}"}]
  valid: {every: 10}
  test: [{archive: a.tgz, member: "test.{lang}"}]
bpe_tokens: 100
subword: sentencepiece
sentencepiece: {model_type: bpe}
"""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    corpus = load_corpus(str(path))
    assert corpus.subword == "sentencepiece"
    assert (corpus.sentencepiece.model_type, corpus.sentencepiece.character_coverage) == (
        "bpe",
        1.0,
    )
    path.write_text(text + "text: {aggressive_hyphens: true}\n")
    with pytest.raises(UserError, match="aggressive_hyphens go with subword-nmt only"):
        load_corpus(str(path))
    path.write_text(text.replace("model_type", "type"))
    with pytest.raises(UserError, match="sentencepiece: unknown key 'type'"):
        load_corpus(str(path))
