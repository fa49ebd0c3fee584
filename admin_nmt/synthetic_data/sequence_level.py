"""Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947, section 3.2).

A teacher translates the source side of the training set, and a student trains on its translations in
place of the references. They are taken in subwords as the teacher gives them, so that nothing is
tokenised again and the student keeps the teacher's vocabulary.

    OUTPUT/translations/   what has been translated so far, a file for every `PART_SENTENCES`
    OUTPUT/data-bin/       a data folder: the training sets of the teacher, all else as it was
    OUTPUT/distillation.json   what was made, and the direction in which to train

fairseq reads `train`, `train1`, ... of a folder as one training set. Each of them is translated and keeps
its name, so that `--upsample-primary` means for the student what it meant for its teacher.

Interrupted, the same call goes on with the first part that is missing.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import ConcatDataset

from admin_nmt.data.data_folder import joined_subsets
from admin_nmt.errors import UserError
from admin_nmt.export.search import Search
from admin_nmt.files import atomic_folder, make_directory, sha256
from admin_nmt.json_files import require_same_settings, write_json
from admin_nmt.progress import progress
from admin_nmt.synthetic_data.translating import (
    PART_SENTENCES,
    SUBSET,
    TRANSLATIONS,
    copy_data,
    identities,
    identity_of_data,
    load_dictionary,
    load_translation_model,
    read_parts,
    require_own_output,
    translate_parts,
    write_pairs,
)

logger = logging.getLogger(__name__)

#: Says what was made; written last.
RESULT = "distillation.json"


@dataclass(frozen=True)
class Distilled:
    """What became of the training set.

    Attributes:
        data: the new data folder.
        source_lang, target_lang: of teacher and student.
        subsets: the training sets: `train`, and `train1`, ... where they are there.
        num_sources: sentences that were to be translated.
        num_long: of these, longer than the teacher reads; left out.
        num_pairs: in the new training sets.
        num_repeated: pairs left out because the same pair was in the same set before.
    """

    data: Path
    source_lang: str
    target_lang: str
    subsets: list[str]
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
        UsageError: `output` lies in `data` or would replace it.
    """
    data = Path(data)
    require_own_output(data, Path(output), RESULT)
    output, search = make_directory(output), search or Search()
    backend, languages = load_translation_model(teacher, data, threads, device)
    translations = make_directory(output / TRANSLATIONS)
    stems = joined_subsets(data, SUBSET, *languages)
    identity, earlier = identities(teacher)
    require_same_settings(translations / "settings.json", {
        "teacher": identity, **identity_of_data(data, languages),
        "training set": [sha256(data / f"{stem}.{languages[0]}.bin") for stem in stems],
        "search": asdict(search), "part_sentences": part_sentences,
    }, earlier={"teacher": earlier})  # fmt: skip
    dictionaries = [load_dictionary(data, language) for language in languages]
    originals = {stem: _sides(data / stem, languages, dictionaries) for stem in stems}
    sources: Any = ConcatDataset([source for source, _ in originals.values()])
    parts = translate_parts(
        backend, sources, dictionaries[0], translations, search, batch_tokens, part_sentences
    )  # fmt: skip
    left_out: Counter[str] = Counter()
    translated = read_parts(parts)
    pairs = {
        stem: _distilled_pairs(
            source, target if keep_original else None, islice(translated, len(source)), dictionaries[1], left_out
        )
        for stem, (source, target) in originals.items()
    }  # fmt: skip
    num_pairs, num_repeated = _write(data, output / "data-bin", languages, dictionaries, pairs)
    num_long = left_out["too long"]
    if num_long:
        logger.warning(
            "%d sentences are empty or longer than the teacher reads: left out", num_long
        )
    found = Distilled(
        data=output / "data-bin",
        source_lang=languages[0],
        target_lang=languages[1],
        subsets=[stem.split(".")[0] for stem in originals],
        num_sources=len(sources),
        num_long=num_long,
        num_pairs=num_pairs,
        num_repeated=num_repeated,
    )
    write_json(output / RESULT, asdict(found) | {"data": str(found.data)})
    return found


def _sides(
    prefix: Path, languages: tuple[str, str], dictionaries: Sequence[Any]
) -> tuple[Any, Any]:
    """Source and target of a training set, each a sequence of tensors that end in `</s>`."""
    from fairseq.data import data_utils

    source, target = (
        data_utils.load_indexed_dataset(f"{prefix}.{language}", dictionary)
        for language, dictionary in zip(languages, dictionaries, strict=True)
    )
    return source, target


def _distilled_pairs(
    sources: Any,
    targets: Any | None,
    translated: Iterable[list[str] | None],
    dictionary: Any,
    left_out: Counter[str],
) -> Iterator[tuple[Tensor, Tensor]]:
    """The references, where they stay, then the teacher's; sentences that it cannot read are counted."""
    if targets is not None:
        yield from zip(_written(sources), targets, strict=True)
    for source, hypotheses in zip(_written(sources), translated, strict=True):
        if hypotheses is None:
            left_out["too long"] += 1
        for words in hypotheses or ():
            yield source, dictionary.encode_line(words, add_if_not_exist=False)


def _written(sources: Any) -> Iterable[Tensor]:
    return progress(logger, "writing pairs", "sentences", sources)


def _write(
    data: Path,
    folder: Path,
    languages: tuple[str, str],
    dictionaries: Sequence[Any],
    pairs: Mapping[str, Iterable[tuple[Tensor, Tensor]]],
) -> tuple[int, int]:
    """The new data folder: all of `data` but its training sets, and for each of these its `pairs`.

    Returns:
        As `write_pairs` does, of all sets together.
    """
    num_pairs = num_repeated = 0
    with atomic_folder(folder) as made:
        copy_data(data, made, f"{SUBSET}.*", f"{SUBSET}[0-9]*")
        # Stems stay, also where the teacher reads them backwards: fairseq infers the direction from any
        # file of the folder, and names that differ would leave it to chance.
        for stem, of_set in pairs.items():
            written, repeated = write_pairs(made / stem, languages, dictionaries, of_set)
            if not written:
                raise UserError(f"{data}: the teacher could read no sentence of {stem}")
            num_pairs += written
            num_repeated += repeated
    return num_pairs, num_repeated
