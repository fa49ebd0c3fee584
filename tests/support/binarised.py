"""Binarised text without a process of fairseq-preprocess."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

Words = Sequence[str]


def write_dictionary(data: Path, language: str, words: Iterable[str]) -> None:
    """The words in their order, without the special ones."""
    text = "".join(f"{word} 1\n" for word in words)
    (data / f"dict.{language}.txt").write_text(text, encoding="utf-8")


def write_subset(data: Path, name: str, pairs: Iterable[tuple[Words, Words]]) -> None:
    """Add a subset de-en to a folder with dictionaries, as `fairseq-preprocess` writes it."""
    from fairseq.data import Dictionary, indexed_dataset

    pairs = list(pairs)
    for side, language in enumerate(("de", "en")):
        words = Dictionary.load(str(data / f"dict.{language}.txt"))
        stem = str(data / f"{name}.de-en.{language}")
        builder = indexed_dataset.make_builder(f"{stem}.bin", "mmap", vocab_size=len(words))
        for pair in pairs:
            builder.add_item(torch.IntTensor([*map(words.index, pair[side]), words.eos()]))
        builder.finalize(f"{stem}.idx")


def read_pairs(data: Path, subset: str, source: str, target: str) -> list[tuple[str, str]]:
    """(source, target) of a subset de-en as words with spaces between, subwords as they are."""
    from fairseq.data import Dictionary, data_utils

    sides = []
    for language in (source, target):
        words = Dictionary.load(str(data / f"dict.{language}.txt"))
        lines = data_utils.load_indexed_dataset(str(data / f"{subset}.de-en.{language}"), words)
        sides.append([" ".join(words[token] for token in line[:-1]) for line in lines])
    return list(zip(*sides, strict=True))
