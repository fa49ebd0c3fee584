"""Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947, section 3.2).

A teacher translates the source side of the training set, and a student trains on its translations in
place of the references. They are taken in subwords as the teacher gives them, so that nothing is
tokenised again and the student keeps the teacher's vocabulary.

    OUTPUT/translations/   what has been translated so far, a file for every `PART_SENTENCES`
    OUTPUT/data-bin/       a data folder: the training set of the teacher, all else as it was

Interrupted, the same call goes on with the first part that is missing.
"""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from admin_nmt.data.binarised import subsets
from admin_nmt.distillation.translating import (
    PART_SENTENCES,
    SUBSET,
    copied,
    identity,
    load_dictionary,
    load_teacher,
    read_parts,
    require_same_settings,
    translate_parts,
    write_pairs,
)
from admin_nmt.errors import UserError
from admin_nmt.export.backends import Search
from admin_nmt.files import make_directory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Distilled:
    """What became of the training set.

    Attributes:
        data: the new data folder.
        num_sources: sentences that were to be translated.
        num_long: of these, longer than the teacher reads; left out.
        num_pairs: in the new training set.
        num_repeated: pairs left out because the same pair was there before.
    """

    data: Path
    num_sources: int
    num_long: int
    num_pairs: int
    num_repeated: int


def distill(
    teacher: str | os.PathLike[str],
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    search: Search | None = None,
    *,
    keep_original: bool = False,
    threads: int | None = None,
    device: str = "auto",
    batch_tokens: int = 4000,
    part_sentences: int = PART_SENTENCES,
) -> Distilled:
    """A data folder whose training targets are the teacher's translations.

    Args:
        teacher: a folder of `admin-nmt export` (fast), or a fairseq checkpoint.
        data: the data folder that the teacher was trained on.
        output: folder for everything.
        search: beam, length penalty, and how many translations of a sentence become pairs.
        keep_original: the pairs of `data` stay, before the new ones.
        threads: cores; default: all.
        device: `cpu`, `cuda` or `auto`.
        batch_tokens: most subwords in one batch, padding included.
        part_sentences: sentences in one file of translations.

    Raises:
        UserError: no such teacher or data, another vocabulary, or `output` holds translations by
            another teacher or search.
    """
    data, output, search = Path(data), make_directory(output), search or Search()
    translator, (source, target) = load_teacher(teacher, data, threads, device)
    translations = make_directory(output / "translations")
    require_same_settings(translations / "settings.json", {
        "teacher": identity(teacher), "data": str(data.resolve()), "search": asdict(search),
        "part_sentences": part_sentences,
    })  # fmt: skip
    dictionaries = [load_dictionary(data, language) for language in (source, target)]
    sources, targets = _pairs(data, (source, target), dictionaries)
    parts = translate_parts(
        translator.backend, sources, dictionaries[0], translations, search, batch_tokens, part_sentences
    )  # fmt: skip
    left_out: Counter[str] = Counter()
    pairs = _distilled_pairs(
        sources, targets if keep_original else None, parts, dictionaries[1], left_out
    )
    num_pairs, num_repeated = _write(
        data, output / "data-bin", (source, target), dictionaries, pairs
    )
    num_long = left_out["too long"]
    if num_long:
        logger.warning(
            "%d sentences are empty or longer than the teacher reads: left out", num_long
        )
    return Distilled(output / "data-bin", len(sources), num_long, num_pairs, num_repeated)


def _pairs(data: Path, languages: tuple[str, str], dictionaries: Sequence[Any]) -> tuple[Any, Any]:
    """The training set's sides, each a sequence of tensors that end in `</s>`."""
    from fairseq.data import data_utils

    (pair,) = subsets(data)[SUBSET] & {"-".join(languages), "-".join(languages[::-1])}
    source, target = (
        data_utils.load_indexed_dataset(str(data / f"{SUBSET}.{pair}.{language}"), dictionary)
        for language, dictionary in zip(languages, dictionaries, strict=True)
    )
    return source, target


def _distilled_pairs(
    sources: Any,
    targets: Any | None,
    parts: Sequence[Path],
    dictionary: Any,
    left_out: Counter[str],
) -> Iterator[tuple[Tensor, Tensor]]:
    """The references, where they stay, then the teacher's; sentences that it cannot read are counted."""
    if targets is not None:
        yield from zip(sources, targets, strict=True)
    for source, hypotheses in zip(sources, read_parts(parts), strict=True):
        if hypotheses is None:
            left_out["too long"] += 1
        for words in hypotheses or ():
            yield source, dictionary.encode_line(words, add_if_not_exist=False)


def _write(
    data: Path,
    folder: Path,
    languages: tuple[str, str],
    dictionaries: Sequence[Any],
    pairs: Iterable[tuple[Tensor, Tensor]],
) -> tuple[int, int]:
    """The new data folder: `pairs`, and all of `data` but its training set; as `write_pairs` returns."""
    scratch = copied(data, folder, f"{SUBSET}.*", f"{SUBSET}[0-9]*")
    prefix = scratch / f"{SUBSET}.{'-'.join(languages)}"
    num_pairs, num_repeated = write_pairs(prefix, languages, dictionaries, pairs)
    if not num_pairs:
        raise UserError(f"{data}: the teacher could read no sentence of the training set")
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    return num_pairs, num_repeated
