"""Sequence-level distillation (Kim & Rush 2016, arXiv 1606.07947, section 3.2).

A teacher translates the source side of the training set, and a student trains on its translations in
place of the references. They are taken in subwords as the teacher gives them, so that nothing is
tokenised again and the student keeps the teacher's vocabulary.

    OUTPUT/translations/   what has been translated so far, a file for every `PART_SENTENCES`
    OUTPUT/data-bin/       a data folder: the training set of the teacher, all else as it was

Interrupted, the same call goes on with the first part that is missing.
"""

import filecmp
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torch import Tensor

from admin_nmt.checkpoints.direction import find_direction
from admin_nmt.data.binarised import subsets
from admin_nmt.documents import read_json, write_json
from admin_nmt.errors import UserError
from admin_nmt.export.backends import Backend, Search, Sentence
from admin_nmt.export.loading import load_translator
from admin_nmt.export.translator import translate_sentences
from admin_nmt.files import atomic_write, make_directory, sha256
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

#: Sentences in one file of translations; what an interruption can cost.
PART_SENTENCES = 10_000
SUBSET = "train"


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
    checkpoint = not Path(teacher).is_dir()
    translator = load_translator(
        teacher, data=data if checkpoint else None, threads=threads, device=device
    )
    trained = translator.languages
    assert trained is not None  # load_translator knows them
    source, target = find_direction(data, SUBSET, *trained, trained)
    if not checkpoint:
        _require_same_dictionaries(Path(teacher), data, (source, target))
    translations = make_directory(output / "translations")
    _require_same_settings(translations / "settings.json", {
        "teacher": sha256(Path(teacher) / "export.json" if not checkpoint else teacher),
        "data": str(data.resolve()), "search": asdict(search), "part_sentences": part_sentences,
    })  # fmt: skip
    dictionaries = [_dictionary(data, language) for language in (source, target)]
    sources, targets = _pairs(data, (source, target), dictionaries)
    parts = _translated(
        translator.backend, sources, dictionaries[0], translations, search, batch_tokens, part_sentences
    )  # fmt: skip
    pairs = _distilled_pairs(sources, targets if keep_original else None, parts, dictionaries[1])
    return _write(data, output / "data-bin", (source, target), dictionaries, len(sources), pairs)


def _require_same_dictionaries(teacher: Path, data: Path, languages: tuple[str, str]) -> None:
    for language in languages:
        name = f"dict.{language}.txt"
        if not (data / name).is_file() or not filecmp.cmp(teacher / name, data / name, False):
            raise UserError(
                f"{teacher} has another vocabulary than {data} ({name}): distil with the data folder "
                "that the teacher was trained on"
            )


def _require_same_settings(path: Path, settings: dict[str, Any]) -> None:
    """What `path` says of the translations beside it, if there are any, is what is wanted now."""
    if path.exists():
        before = read_json(path)
        for name, value in settings.items():
            if before.get(name) != value:
                raise UserError(
                    f"{path.parent} holds translations with another {name} ({before.get(name)}): "
                    "give another --output, or remove it"
                )
    write_json(path, settings)


def _dictionary(data: Path, language: str) -> Any:
    from fairseq.data import Dictionary

    return Dictionary.load(str(data / f"dict.{language}.txt"))


def _pairs(data: Path, languages: tuple[str, str], dictionaries: Sequence[Any]) -> tuple[Any, Any]:
    """The training set's sides, each a sequence of tensors that end in `</s>`."""
    from fairseq.data import data_utils

    (pair,) = subsets(data)[SUBSET] & {"-".join(languages), "-".join(languages[::-1])}
    source, target = (
        data_utils.load_indexed_dataset(str(data / f"{SUBSET}.{pair}.{language}"), dictionary)
        for language, dictionary in zip(languages, dictionaries, strict=True)
    )
    return source, target


def _translated(
    backend: Backend, sources: Any, dictionary: Any, folder: Path, search: Search,
    batch_tokens: int, part_sentences: int,
) -> list[Path]:  # fmt: skip
    """The files with the translations of all sources, which are made where they are missing."""
    starts = range(0, len(sources), part_sentences)
    parts = [folder / f"{number:05d}.jsonl" for number in range(len(starts))]
    with progress(logger, "translating", "sentences", total=len(sources)) as bar:
        for number, (start, part) in enumerate(zip(starts, parts, strict=True)):
            indices = range(start, min(start + part_sentences, len(sources)))
            if not part.exists():
                # Without the end of sentence, which an engine adds.
                lines = [dictionary.string(sources[index][:-1]).split() for index in indices]
                if search.sampling is not None:
                    # The same numbers for a part, whether those before it were made in this run.
                    backend.seed(search.sampling.seed + number)
                found = _translate(backend, lines, search, batch_tokens)
                with atomic_write(part) as stream:
                    for hypotheses in found:
                        stream.write(json.dumps(hypotheses, ensure_ascii=False) + "\n")
            bar.update(len(indices))
    return parts


def _translate(
    backend: Backend, lines: Sequence[Sentence], search: Search, batch_tokens: int
) -> list[list[str] | None]:
    """Translations of each line in subwords joined by spaces; None where it is too long to be read."""
    kept = [index for index, line in enumerate(lines) if 0 < len(line) <= backend.max_source]
    hypotheses = translate_sentences(backend, [lines[i] for i in kept], search, batch_tokens)
    found: list[list[str] | None] = [None] * len(lines)
    for index, entries in zip(kept, hypotheses, strict=True):
        found[index] = [" ".join(entry.tokens) for entry in entries]
    return found


def _read_parts(parts: Sequence[Path]) -> Iterator[list[str] | None]:
    for part in parts:
        with part.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _distilled_pairs(
    sources: Any, targets: Any | None, parts: Sequence[Path], dictionary: Any
) -> Iterator[tuple[Tensor, Tensor] | None]:
    """The references, where they stay, then the teacher's; None for a sentence that it cannot read."""
    if targets is not None:
        yield from zip(sources, targets, strict=True)
    for source, hypotheses in zip(sources, _read_parts(parts), strict=True):
        if hypotheses is None:
            yield None
        for words in hypotheses or ():
            yield source, dictionary.encode_line(words, add_if_not_exist=False)


def _write(
    data: Path, folder: Path, languages: tuple[str, str], dictionaries: Sequence[Any],
    num_sources: int, pairs: Iterable[tuple[Tensor, Tensor] | None],
) -> Distilled:  # fmt: skip
    """The new data folder: `pairs` without repetitions, and all of `data` but its training set."""
    from fairseq.data.indexed_dataset import make_builder

    scratch = folder.with_name(folder.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(data, scratch, ignore=shutil.ignore_patterns(f"{SUBSET}.*", f"{SUBSET}[0-9]*"))
    prefix = scratch / f"{SUBSET}.{'-'.join(languages)}"
    builders = [
        make_builder(f"{prefix}.{language}.bin", impl="mmap", vocab_size=len(dictionary))
        for language, dictionary in zip(languages, dictionaries, strict=True)
    ]
    seen: set[bytes] = set()
    num_pairs = num_repeated = num_long = 0
    for pair in pairs:
        if pair is None:
            num_long += 1
            continue
        tensors = [tensor.int() for tensor in pair]
        key = blake2b(b"|".join(tensor.numpy().tobytes() for tensor in tensors), digest_size=16)
        if key.digest() in seen:
            num_repeated += 1
            continue
        seen.add(key.digest())
        num_pairs += 1
        for builder, tensor in zip(builders, tensors, strict=True):
            builder.add_item(tensor)
    for builder, language in zip(builders, languages, strict=True):
        builder.finalize(f"{prefix}.{language}.idx")
    if not num_pairs:
        raise UserError(f"{data}: the teacher could read no sentence of the training set")
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    if num_long:
        logger.warning(
            "%d sentences are empty or longer than the teacher reads: left out", num_long
        )
    return Distilled(folder, num_sources, num_long, num_pairs, num_repeated)
