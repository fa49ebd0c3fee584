"""What may become of a word, and how often, is what the libraries themselves draw."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from subword_nmt.apply_bpe import BPE

from admin_nmt.data import bpe, sentence_pieces
from admin_nmt.data.segmentations import (
    NUM_BEST,
    BestSegmentations,
    Choice,
    MergeDropout,
    Pieces,
    Process,
    ScoredMergeDropout,
)
from tests.support.segmentations import DRAWS, TEXT, WORDS, agree, distribution


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    counts = bpe.count_words(TEXT)
    bpe.learn(counts, 45, folder / "codes")
    # As in files of version 0.1, where the end of a word is a symbol of its own.
    (folder / "old").write_text("l a\nla la\nlo w\nl o\nt </w>\ns t</w>\ne st</w>\nw est</w>\n")
    for model_type in sentence_pieces.MODEL_TYPES:
        sentence_pieces.learn(counts, 70, model_type, 1.0, folder / model_type)
    return folder


def without_chance(process: Process, word: str) -> Pieces:
    state = process.start(word)
    while isinstance(step := process.step(state), Choice):
        state = step.first
    return step


@pytest.mark.parametrize("name", ["codes", "old"])
@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_bpe_dropout_is_subword_nmts(folder: Path, name: str, dropout: float) -> None:
    process = MergeDropout(folder / name, dropout)
    with (folder / name).open(encoding="utf-8") as stream:
        theirs = BPE(stream)
    random.seed(5)
    for word in WORDS:
        assert without_chance(process, word) == tuple(theirs.segment_tokens([word]))
        drawn = [theirs.segment_tokens([word], dropout) for _ in range(DRAWS)]
        agree(distribution(process, word), drawn)
        assert process.word(without_chance(process, word)) == word


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_bpe_dropout_of_sentencepiece_is_its_own(folder: Path, dropout: float) -> None:
    process = ScoredMergeDropout(folder / "bpe", dropout)
    _agree_with_sentencepiece(process, folder / "bpe", enable_sampling=True, alpha=dropout)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_subword_regularisation_is_sentencepieces(folder: Path, alpha: float) -> None:
    process = BestSegmentations(folder / "unigram", alpha)
    _agree_with_sentencepiece(
        process, folder / "unigram", enable_sampling=True, alpha=alpha, nbest_size=NUM_BEST
    )


def _agree_with_sentencepiece(process: Process, path: Path, **options: object) -> None:
    theirs = sentence_pieces.load(path)
    for word in WORDS:
        drawn = (theirs.encode(word, out_type=str, **options) for _ in range(DRAWS))
        marked = "▁" + word
        agree(distribution(process, marked), drawn)
        assert without_chance(process, marked) == tuple(theirs.encode(word, out_type=str))
        assert process.word(without_chance(process, marked)) == marked


PROCESSES: dict[str, Callable[[Path, float], Process]] = {
    "codes": MergeDropout,
    "old": MergeDropout,
    "bpe": ScoredMergeDropout,
}


@pytest.mark.parametrize("name", PROCESSES)
def test_none_is_the_identity_and_all_gives_characters(folder: Path, name: str) -> None:
    for word in WORDS:
        word = "▁" + word if name == "bpe" else word
        none, every = (PROCESSES[name](folder / name, dropout) for dropout in (0.0, 1.0))
        certain = {p: x for p, x in distribution(none, word).items() if x}
        assert certain == {without_chance(none, word): 1}
        (pieces,) = (p for p, x in distribution(every, word).items() if x)
        assert [piece.removesuffix("@@") for piece in pieces] == list(word)


def test_kinds_of_models_are_told_apart(folder: Path) -> None:
    for model_type in sentence_pieces.MODEL_TYPES:
        assert sentence_pieces.model_type(folder / model_type) == model_type
