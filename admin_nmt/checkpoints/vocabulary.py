"""A checkpoint with another vocabulary, to fine-tune on other text (`admin-nmt extend-vocabulary`).

fairseq numbers words by their place in the dictionary, and row i of an embedding, or of the output
projection, belongs to word i. Another dictionary therefore needs other tables: words that both
dictionaries have keep their row, at its new place; the others start as the mean of the old rows, which
bounds how far a new word can move the distribution over the old ones (Hewitt 2021, "Initializing New Word
Embeddings for Pretrained Language Models").
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.checkpoints.checkpoint import TRANSFORMERS, Checkpoint
from admin_nmt.checkpoints.tensors import leaders
from admin_nmt.errors import UsageError, UserError

#: Tables with a row for each word of the source (0) or the target language (1); the last name is that
#: of the output projection in old files.
_TABLES = {
    "encoder.embed_tokens.weight": 0,
    "decoder.embed_tokens.weight": 1,
    "decoder.output_projection.weight": 1,
    "decoder.embed_out": 1,
}

#: What `fairseq-preprocess --padding-factor` fills dictionaries up with.
_FILLER = re.compile(r"madeupword\d{4,}")


def find_rows(old: Mapping[str, int], new: Sequence[str]) -> list[int | None]:
    """For each word of a new vocabulary its row in the old table, None where it had none.

    Examples:
        >>> find_rows({"a": 0, "b": 1}, ["b", "c", "a"])
        [1, None, 0]
    """
    return [old.get(word) for word in new]


def rearrange_rows(table: Tensor, rows: Sequence[int | None], padding: int) -> Tensor:
    """A table for a new vocabulary: old rows at new places, and their mean for new words.

    Args:
        table: (V, D), of the old vocabulary.
        rows: V' rows of `table`, None for a word that is not in it.
        padding: the row of the padding symbol, which takes no part in the mean.

    Returns:
        (V', D), in the type of `table`; the mean is computed in float64.
    """
    others = torch.arange(len(table)) != padding
    mean = table[others].double().mean(0).to(table.dtype)
    result = mean.repeat(len(rows), 1)
    kept = [place for place, row in enumerate(rows) if row is not None]
    result[kept] = table[[row for row in rows if row is not None]]
    return result


@dataclass(frozen=True)
class VocabularyChange:
    """What becomes of the words of one language, special symbols and fillers aside.

    Attributes:
        language: its code.
        kept: words of both vocabularies.
        new: words of the new one only.
        dropped: words of the old one only.
    """

    language: str
    kept: int
    new: int
    dropped: int

    def line(self) -> str:
        """The numbers in one line."""
        return f"{self.language}: {self.kept} words kept, {self.new} new, {self.dropped} dropped"


def extend_vocabulary(
    checkpoint: Checkpoint,
    data: str | os.PathLike[str],
    *,
    old_data: str | os.PathLike[str] | None = None,
    source_lang: str | None = None,
    target_lang: str | None = None,
) -> tuple[Checkpoint, list[VocabularyChange]]:
    """The checkpoint for the dictionaries of another data folder, without the state of the optimizer.

    Args:
        checkpoint: of `admin_transformer` or fairseq's `transformer`, pruned and folded ones included.
        data: folder with `dict.SRC.txt` and `dict.TGT.txt` of the new vocabularies; the result says that
            it was trained there.
        old_data: folder with the old ones; default: where the checkpoint says it was trained.
        source_lang: of the checkpoint, where it does not say so itself.
        target_lang: likewise.

    Returns:
        the new checkpoint, and what became of the words of source and target.

    Raises:
        UserError: another kind of model; a dictionary is missing, damaged or has another number of words
            than the checkpoint; embeddings are shared and the dictionaries differ; no word is shared.
        UsageError: languages that are unknown, or not those of the checkpoint.
    """
    checkpoint.require_family(TRANSFORMERS, "be given another vocabulary")
    if any(name.startswith("decoder.adaptive_softmax.") for name in checkpoint.weights):
        raise UserError(
            f"checkpoint {checkpoint.path} was trained with --adaptive-softmax-cutoff, whose clusters go "
            "by the places of words in the dictionary: they cannot be given another vocabulary"
        )
    languages = _languages(checkpoint, source_lang, target_lang)
    old_folder = _old_folder(checkpoint, Path(data), old_data)
    old, new = (
        [_read_dictionary(folder / f"dict.{language}.txt") for language in languages]
        for folder in (old_folder, Path(data))
    )
    _require_joined(checkpoint, [old_folder, Path(data)], [old, new])
    rows = [find_rows(old[side].indices, new[side].symbols) for side in (0, 1)]
    changes = [
        _change(language, *words) for language, *words in zip(languages, old, new, strict=True)
    ]
    for change, name in zip(changes, languages, strict=True):
        if not change.kept:
            raise UserError(
                f"{Path(data) / f'dict.{name}.txt'} and {old_folder / f'dict.{name}.txt'} share no "
                "word, so nothing is left of the embeddings: were both texts split into subwords alike?"
            )
    weights = dict(checkpoint.weights)
    for name, leader in leaders(checkpoint.weights).items():
        side = _TABLES.get(name)
        if side is None:
            continue
        if name != leader:
            weights[name] = weights[leader]
            continue
        _require_fitting(checkpoint, name, old_folder / f"dict.{languages[side]}.txt", old[side])
        weights[name] = rearrange_rows(weights[name], rows[side], old[side].pad())
    task = {"data": str(Path(data).absolute())}
    task |= dict(zip(("source_lang", "target_lang"), languages, strict=True))
    return checkpoint.replaced(weights, {}, task), changes


def _languages(checkpoint: Checkpoint, source: str | None, target: str | None) -> tuple[str, str]:
    """The direction of the checkpoint, which options may tell but not change."""
    found = []
    for option, given, known in zip(
        ("--source-lang", "--target-lang"), (source, target), checkpoint.languages, strict=True
    ):
        if given and known and given != known:
            raise UsageError(f"{option} {given}: the checkpoint was trained with {known}")
        language = given or known
        if language is None:
            raise UsageError(
                f"checkpoint {checkpoint.path} does not say its languages, and the data that it was "
                f"trained on is not where it was: give {option}"
            )
        found.append(language)
    return found[0], found[1]


def _old_folder(
    checkpoint: Checkpoint, data: Path, old_data: str | os.PathLike[str] | None
) -> Path:
    """The folder with the dictionaries that the checkpoint was trained with."""
    if old_data is not None:
        return Path(old_data)
    folder = checkpoint.data_folder
    if folder is None or not folder.is_dir():
        raise UserError(
            f"checkpoint {checkpoint.path} was trained on {folder or 'an unknown folder'}, which is not "
            "here: give --old-data DIR, a folder with the dictionaries of that training"
        )
    if data.is_dir() and folder.samefile(data):
        raise UserError(
            f"checkpoint {checkpoint.path} was trained on {data} itself: give the folder with the new "
            "dictionaries, or --old-data DIR where those of the training are elsewhere now"
        )
    return folder


def _read_dictionary(path: Path) -> Any:
    """A dictionary as fairseq reads it, special symbols included."""
    from fairseq.data import Dictionary

    if not path.is_file():
        raise UserError(
            f"dictionary not found: {path}; a checkpoint gets another vocabulary for the languages "
            "that it was trained to translate"
        )
    try:
        return Dictionary.load(str(path))
    except Exception as error:  # fairseq raises all kinds, with the reason in the text
        raise UserError(f"cannot read dictionary {path}: {error}") from error


def _require_joined(
    checkpoint: Checkpoint, folders: Sequence[Path], dictionaries: Sequence[Sequence[Any]]
) -> None:
    """Embeddings that both languages share need one dictionary for both, in each folder."""
    leader = leaders(checkpoint.weights)
    tables = [leader.get(f"{side}.embed_tokens.weight") for side in ("encoder", "decoder")]
    if not (checkpoint.setting("model", "share_all_embeddings") or tables[0] == tables[1]):
        return
    for folder, (source, target) in zip(folders, dictionaries, strict=True):
        if source != target:
            raise UserError(
                f"checkpoint {checkpoint.path} shares the embeddings of both languages "
                f"(--share-all-embeddings), and the dictionaries of {folder} differ: prepare the data with "
                "--joined-dictionary"
            )


def _require_fitting(checkpoint: Checkpoint, name: str, path: Path, dictionary: Any) -> None:
    table = checkpoint.weights[name]
    if table.dim() != 2 or len(table) != len(dictionary):
        raise UserError(
            f"checkpoint {checkpoint.path} was not trained with dictionary {path}: its {name} has "
            f"shape {tuple(table.shape)}, the dictionary {len(dictionary)} types; give --old-data DIR, a "
            "folder with the dictionaries of its training"
        )


def _change(language: str, old: Any, new: Any) -> VocabularyChange:
    before, after = (
        {word for word in words.symbols[words.nspecial :] if not _FILLER.fullmatch(word)}
        for words in (old, new)
    )
    return VocabularyChange(language, len(before & after), len(after - before), len(before - after))
