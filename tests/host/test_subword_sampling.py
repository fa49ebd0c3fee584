"""`--bpe-dropout` in training: drawn by seed, epoch and sentence, whatever makes the batches."""

import random
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from admin_nmt.data import bpe, sentence_pieces
from admin_nmt.data.subwords import SentencePiece, SubwordNmt, Subwords
from admin_nmt.errors import UsageError, UserError
from tests.support.training import COMMON, require_equal, train, weights

WORDS = "lower lowest slower slowest newer newest wide wider widest older oldest".split()
RDROP = ("--criterion", "label_smoothed_cross_entropy_rdrop")
NUM_PAIRS = {"train": 160, "valid": 10, "test": 10}


def binarise(folder: Path, text: dict[str, list[str]], pieces: Subwords) -> None:
    """What `fairseq-preprocess` makes of lines of pieces, with all that a merge may leave in the one
    dictionary; German is the text and English its words in reverse."""
    from fairseq.data import Dictionary, indexed_dataset

    dictionary = Dictionary()
    lines = {
        (split, lang): [
            pieces.split(" ".join(line.split()[:: 1 if lang == "de" else -1])).split()
            for line in text[split]
        ]
        for split in text
        for lang in ("de", "en")
    }
    for symbol in sorted({*chain.from_iterable(chain.from_iterable(lines.values()))}):
        dictionary.add_symbol(symbol)
    for letter in sorted(set("".join(WORDS))):
        for symbol in (letter, letter + "@@", "▁"):
            dictionary.add_symbol(symbol)
    for word in WORDS:
        for length in (2, 3):
            for start in range(len(word) - length + 1):
                part = word[start : start + length]
                dictionary.add_symbol(part)
                dictionary.add_symbol(part + "@@")
    dictionary.finalize(padding_factor=1)
    for lang in ("de", "en"):
        dictionary.save(str(folder / f"dict.{lang}.txt"))
    for (split, lang), sentences in lines.items():
        prefix = str(folder / f"{split}.de-en.{lang}")
        builder = indexed_dataset.MMapIndexedDatasetBuilder(prefix + ".bin", dtype=np.int32)
        for sentence in sentences:
            numbers = [dictionary.index(symbol) for symbol in sentence]
            builder.add_item(torch.tensor([*numbers, dictionary.eos()]))
        builder.finalize(prefix + ".idx")


@pytest.fixture(scope="module")
def text() -> dict[str, list[str]]:
    rng = random.Random(6)
    return {
        split: [" ".join(rng.choices(WORDS, k=rng.randint(1, 7))) for _ in range(count)]
        for split, count in NUM_PAIRS.items()
    }


@pytest.fixture(scope="module")
def data(text: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binarised folder with its BPE codes, without `preparation.json`."""
    folder = tmp_path_factory.mktemp("subwords")
    bpe.learn(bpe.count_words(text["train"]), 40, folder / "codes")
    binarise(folder, text, SubwordNmt(folder / "codes"))
    return folder


@pytest.fixture(scope="module")
def piece_data(text: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a unigram model of SentencePiece."""
    folder = tmp_path_factory.mktemp("pieces")
    path = folder / "sentencepiece.model"
    sentence_pieces.learn(bpe.count_words(text["train"]), 40, "unigram", 1.0, path)
    binarise(folder, text, SentencePiece(path))
    return folder


def trainer_of(data: Path, *options: str) -> Any:
    """fairseq's trainer of a tiny model."""
    from fairseq import options as fairseq_options
    from fairseq import tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.trainer import Trainer

    import admin_nmt.registration  # noqa: F401

    parser = fairseq_options.get_training_parser()
    given = [str(data), *COMMON, "--max-tokens", "120", "--no-save", *options]
    cfg = convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, given))
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    return Trainer(cfg, task, model, criterion)


def epochs(trainer: Any, count: int) -> list[dict[int, tuple[list[str], list[str]]]]:
    """Of each epoch: sentence -> pieces of source and target."""
    iterator = trainer.get_train_iterator(epoch=1)
    dictionary = trainer.task.source_dictionary
    found = []
    for _ in range(count):
        epoch = {}
        for sample in iterator.next_epoch_itr():
            sides = sample["net_input"]["src_tokens"], sample["target"]
            for number, *sentences in zip(sample["id"].tolist(), *sides, strict=True):
                assert not any((sentence == dictionary.unk()).any() for sentence in sentences)
                epoch[number] = tuple(
                    dictionary.string(sentence[sentence != dictionary.pad()]).split()
                    for sentence in sentences
                )
        found.append(epoch)
    return found


def words(epoch: dict[int, tuple[list[str], list[str]]], merge: Callable[[str], str]) -> Any:
    return {n: tuple(merge(" ".join(side)) for side in sides) for n, sides in epoch.items()}


def test_each_epoch_has_its_own_pieces_of_the_same_words(data: Path) -> None:
    (plain,) = epochs(trainer_of(data), 1)
    first, second = epochs(trainer_of(data, "--bpe-dropout", "0.3"), 2)
    assert words(first, bpe.merge) == words(second, bpe.merge) == words(plain, bpe.merge)
    assert len(plain) == NUM_PAIRS["train"]
    for side in (0, 1):
        for one, other in ((first, plain), (second, plain), (first, second)):
            assert sum(one[n][side] != other[n][side] for n in plain) > 0.7 * len(plain)


def test_workers_and_batches_do_not_change_what_is_drawn(data: Path) -> None:
    drawn = epochs(trainer_of(data, "--bpe-dropout", "0.3"), 3)
    for options in (
        ("--num-workers", "2", "--data-buffer-size", "2", "--max-tokens", "60"),
        ("--curriculum", "3", "--batch-size", "1"),
    ):
        assert epochs(trainer_of(data, "--bpe-dropout", "0.3", *options), 3) == drawn, options
    assert epochs(trainer_of(data, "--bpe-dropout", "0.3", "--seed", "4"), 1)[0] != drawn[0]


def test_no_sentence_outgrows_the_model_or_the_largest_bucket(data: Path) -> None:
    options = ("--max-source-positions", "20", "--max-target-positions", "20")
    (free,) = epochs(trainer_of(data, "--bpe-dropout", "0.9"), 1)
    (held,) = epochs(trainer_of(data, "--bpe-dropout", "0.9", *options), 1)
    (plain,) = epochs(trainer_of(data, *options), 1)
    assert max(len(side) for sides in free.values() for side in sides) > 30
    for number, sides in held.items():
        for side in (0, 1):
            fits = len(free[number][side]) < 20  # and its end
            assert sides[side] == (free if fits else plain)[number][side]

    trainer = trainer_of(data, "--bpe-dropout", "0.9", "--num-batch-buckets", "3")
    iterator = trainer.get_train_iterator(epoch=1)
    pairs = iterator.dataset.dataset
    buckets = {
        side: set(map(int, data.buckets)) for side, data in enumerate((pairs.src, pairs.tgt))
    }
    bucketed = {}
    for sample in iterator.next_epoch_itr():
        source, target = sample["net_input"]["src_tokens"], sample["target"]
        assert source.shape[1] in buckets[0] and target.shape[1] in buckets[1]
        pad, string = trainer.task.source_dictionary.pad(), trainer.task.source_dictionary.string
        assert (source[:, -1] != pad).all() and (target[:, 0] != pad).all()
        for number, *sides in zip(sample["id"].tolist(), source, target, strict=True):
            bucketed[number] = [string(side[side != pad]).split() for side in sides]
    for number, sides in bucketed.items():
        for side in (0, 1):
            fits = len(free[number][side]) < max(buckets[side])
            assert sides[side] == (free if fits else plain)[number][side]


def test_one_side_alone(data: Path) -> None:
    (plain,) = epochs(trainer_of(data), 1)
    for side, name in enumerate(("source", "target")):
        options = ("--bpe-dropout", "0.3", "--bpe-dropout-side", name)
        (drawn,) = epochs(trainer_of(data, *options), 1)
        assert all(drawn[n][1 - side] == plain[n][1 - side] for n in plain)
        assert any(drawn[n][side] != plain[n][side] for n in plain)


def test_unigram_models_draw_among_the_best(piece_data: Path) -> None:
    trainer = trainer_of(piece_data, "--subword-regularization", "0.2")
    first, second = epochs(trainer, 2)
    merge = SentencePiece(piece_data).merge
    assert words(first, merge) == words(second, merge)
    assert sum(first[n] != second[n] for n in first) > 0.7 * len(first)


def test_only_training_draws(data: Path) -> None:
    """Not validation, and not what looks at the training text with a checkpoint's options."""
    trainer = trainer_of(data, "--bpe-dropout", "0.3")
    task = trainer.task
    for split in ("train", "valid"):
        task.load_dataset(split)
        assert type(task.dataset(split)).__name__ == "LanguagePairDataset"
    trainer.get_train_iterator(epoch=1)
    assert type(task.dataset("train")).__name__ == "ResegmentedPairs"
    trainer.get_valid_iterator("valid")
    assert type(task.dataset("valid")).__name__ == "LanguagePairDataset"


@pytest.mark.slow
def test_resumed_in_any_epoch(data: Path, tmp_path: Path) -> None:
    options = ("--bpe-dropout", "0.2", "--num-workers", "1", "--num-batch-buckets", "2", *RDROP)
    train(data, tmp_path / "whole", 14, *options)
    for stop in (3, 10, 14):
        train(data, tmp_path / "parts", stop, *options)
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_stock_model_trains_with_it_and_stock_fairseq_takes_its_settings(data: Path) -> None:
    from fairseq.dataclass.utils import merge_with_parent
    from fairseq.tasks.translation import TranslationConfig

    stock = ("--arch", "transformer", "--encoder-layers", "1", "--decoder-layers", "1")
    trainer = trainer_of(data, *stock, "--bpe-dropout", "0.3")
    first, second = epochs(trainer, 2)
    assert sum(first[n] != second[n] for n in first) > 0.7 * len(first)
    # As fairseq does when it loads a checkpoint.
    theirs = merge_with_parent(TranslationConfig(), trainer.cfg.task, remove_missing=True)
    assert theirs.data == str(data) and "bpe_dropout" not in theirs


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--bpe-dropout", "1.5"], UsageError, "--bpe-dropout 1.5: give a probability from 0 to 1"),
        (["--subword-regularization", "-1"], UsageError, "give a number above 0"),
        (["--bpe-dropout", ".1", "--subword-regularization", ".2"], UsageError, "exclude each"),
        (["--subword-regularization", "0.2"], UsageError, "holds merges and not a unigram model"),
        (
            [
                "--bpe-dropout",
                "0.1",
                "--load-alignments",
                "--criterion",
                "label_smoothed_cross_entropy",
            ],
            UsageError,
            "alignments belong to the subwords without --bpe-dropout",
        ),
        (
            [
                "--subword-regularization",
                "0.1",
                "--load-alignments",
                "--criterion",
                "label_smoothed_cross_entropy",
            ],
            UsageError,
            "alignments belong to the subwords without --subword-regularization",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(
    data: Path, options: list[str], error: type[UserError], message: str
) -> None:
    with pytest.raises(error, match=message):
        trainer_of(data, *options).get_train_iterator(epoch=1)


def test_folders_that_cannot_be_split_anew_are_refused(
    data: Path, piece_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is a unigram model, which has no merges"):
        trainer_of(piece_data, "--bpe-dropout", "0.1").get_train_iterator(epoch=1)
    for path in data.iterdir():
        if path.name != "codes":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"does not say how its words were split: .* copy the BPE"):
        trainer_of(tmp_path, "--bpe-dropout", "0.1").get_train_iterator(epoch=1)
    bpe.learn(bpe.count_words(WORDS), 5, tmp_path / "codes")
    with pytest.raises(UserError, match=r"\d+% of the words in .* prepare the data again"):
        trainer_of(tmp_path, "--bpe-dropout", "0.1").get_train_iterator(epoch=1)
    (tmp_path / "preparation.json").write_text("{}")
    with pytest.raises(UserError, match="names neither BPE codes nor a SentencePiece model"):
        trainer_of(tmp_path, "--bpe-dropout", "0.1").get_train_iterator(epoch=1)


def test_the_log_says_how_much_longer_sentences_become(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        trainer_of(data, "--bpe-dropout", "0.3").get_train_iterator(epoch=1)
    (found,) = re.findall(r"--bpe-dropout 0.3, both: .* (\d\.\d\d) times as long", caplog.text)
    assert 1.2 < float(found) < 3
