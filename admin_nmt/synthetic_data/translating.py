"""What is common to training data that a model has translated: resumable translation, writing of pairs."""

import filecmp
import hashlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from admin_nmt.checkpoints.direction import find_direction
from admin_nmt.data.text_pipeline import FILE_NAME, TextPipeline
from admin_nmt.errors import LARGEST_SEED, UsageError, UserError
from admin_nmt.export.backend import Backend
from admin_nmt.export.bundle import MANIFEST
from admin_nmt.export.loading import load_backend
from admin_nmt.export.search import Search, Sentence
from admin_nmt.export.text import load_text
from admin_nmt.export.translator import translate_sentences
from admin_nmt.files import atomic_write, locked, sha256
from admin_nmt.json_files import read_json
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

#: Sentences in one file of translations; what an interruption can cost.
PART_SENTENCES = 10_000
SUBSET = "train"
#: Where translations are kept, below the output folder.
TRANSLATIONS = "translations"


def require_own_output(data: Path, output: Path, result: str) -> None:
    """`output`/data-bin, which is written anew, is not one that something else made; it does not lie in
    `data`, which is copied there, nor the other way round.

    Args:
        data: folder that is read.
        output: folder for everything.
        result: name of the file that is written there last.

    Raises:
        UsageError: one lies in the other.
        UserError: the data-bin was not made here.
    """
    old, new = data.resolve(), (output / "data-bin").resolve()
    if new.is_relative_to(old) or old.is_relative_to(new):
        raise UsageError(
            f"--output {output}: its data-bin would lie in {data} or replace it: give a folder elsewhere"
        )
    ours = (output / TRANSLATIONS, output / result)
    if (output / "data-bin").exists() and not any(path.exists() for path in ours):
        raise UserError(
            f"--output {output} has a data-bin that was not made by this command: give another folder"
        )


def load_translation_model(
    model: str | os.PathLike[str], data: Path, threads: int | None, device: str
) -> tuple[Backend, tuple[str, str]]:
    """A model that was trained on `data`, and the languages that it translates from and to.

    Args:
        model: a folder of `admin-nmt export`, or a fairseq checkpoint.

    Raises:
        UserError: no such model or data, or another vocabulary.
    """
    backend, languages = load_backend(model, data, SUBSET, threads=threads, device=device)
    if Path(model).is_dir():
        languages = find_direction(data, SUBSET, *languages, languages, option=None)
        _require_same_dictionaries(Path(model), data, languages)
    return backend, languages


def text_pipeline_of(
    model: str | os.PathLike[str], data: Path, languages: tuple[str, str]
) -> TextPipeline:
    """How raw text becomes what a model of `load_translation_model` reads.

    Raises:
        UserError: the model is a checkpoint, and `data` does not say.
    """
    if Path(model).is_dir():
        return TextPipeline.load(model)
    if not (data / FILE_NAME).is_file():
        raise UserError(
            f"{data} has no {FILE_NAME} (admin-nmt prepare writes it), which says how raw text becomes "
            "subwords: export the model first, with --bpe-codes or --sentencepiece-model, and give "
            "the exported folder"
        )
    return load_text(data, languages).pipeline


def identities(model: str | os.PathLike[str]) -> tuple[str, str]:
    """A checksum that tells models apart, the same for one that was exported a second time; and what
    earlier versions recorded in its place, which holds the time of the export.

    Args:
        model: what `load_translation_model` has read, so that the files are those of the manifest.
    """
    path = Path(model)
    if not path.is_dir():
        digest = sha256(path)
        return digest, digest
    manifest = read_json(path / MANIFEST)
    decisive = ("source_lang", "target_lang", "quantization", "max_source", "max_target")
    # README.md names a version and a checkpoint, of which only the weights count.
    files = {name: digest for name, digest in manifest["files"].items() if name != "README.md"}
    content = json.dumps([[manifest.get(name) for name in decisive], files], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest(), sha256(path / MANIFEST)


def identity_of_data(data: Path, languages: tuple[str, str]) -> dict[str, Any]:
    """Entries of settings that tell data folders apart: the path, and checksums of the dictionaries."""
    vocabulary = {language: sha256(data / f"dict.{language}.txt") for language in languages}
    return {"data": str(data.resolve()), "vocabulary": vocabulary}


def _require_same_dictionaries(model: Path, data: Path, languages: tuple[str, str]) -> None:
    for language in languages:
        name = f"dict.{language}.txt"
        if not (data / name).is_file() or not filecmp.cmp(model / name, data / name, False):
            raise UserError(
                f"{model} has another vocabulary than {data} ({name}): give the data folder that "
                "the model was trained on"
            )


def load_dictionary(data: Path, language: str) -> Any:
    """The dictionary of a data folder."""
    from fairseq.data import Dictionary

    return Dictionary.load(str(data / f"dict.{language}.txt"))


def translate_parts(
    backend: Backend, sources: Any, dictionary: Any, folder: Path, search: Search,
    batch_tokens: int, part_sentences: int,
) -> list[Path]:  # fmt: skip
    """The files with the translations of all sources, which are made where they are missing.

    Raises:
        UserError: another process translates into `folder`.
    """
    starts = range(0, len(sources), part_sentences)
    parts = [folder / f"{number:05d}.jsonl" for number in range(len(starts))]
    with locked(folder / ".lock", folder):
        missing = [
            (number, range(start, min(start + part_sentences, len(sources))), part)
            for number, (start, part) in enumerate(zip(starts, parts, strict=True))
            if not part.exists()
        ]
        there = len(sources) - sum(len(indices) for _, indices, _ in missing)
        with progress(logger, "translating", "sentences", initial=there, total=len(sources)) as bar:
            for number, indices, part in missing:
                # Without the end of sentence, which an engine adds.
                lines = [dictionary.string(sources[index][:-1]).split() for index in indices]
                if search.sampling is not None:
                    # The same numbers for a part, whether those before it were made in this run.
                    backend.seed((search.sampling.seed + number) % (LARGEST_SEED + 1))
                found = _translate(backend, lines, search, batch_tokens, bar.update)
                with atomic_write(part) as stream:
                    for hypotheses in found:
                        stream.write(json.dumps(hypotheses, ensure_ascii=False) + "\n")
    return parts


def _translate(
    backend: Backend,
    lines: Sequence[Sentence],
    search: Search,
    batch_tokens: int,
    done: Callable[[int], object],
) -> list[list[str] | None]:
    """Translations of each line in subwords joined by spaces; None where it is too long to be read.

    Args:
        done: told how many more lines are translated, or left out.
    """
    kept = [index for index, line in enumerate(lines) if 0 < len(line) <= backend.max_source]
    done(len(lines) - len(kept))
    hypotheses = translate_sentences(
        backend, [lines[i] for i in kept], search, batch_tokens, lambda batch: done(len(batch))
    )
    found: list[list[str] | None] = [None] * len(lines)
    for index, entries in zip(kept, hypotheses, strict=True):
        found[index] = [" ".join(entry.tokens) for entry in entries]
    return found


def read_parts(parts: Sequence[Path]) -> Iterator[list[str] | None]:
    """Of each sentence what `translate_parts` wrote: its translations, None if it is too long to read."""
    for part in parts:
        with part.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def copy_data(data: Path, folder: Path, *left_out: str) -> None:
    """Copy a data folder into `folder`, which exists. Copies of read-only files and folders can be written.

    Args:
        left_out: patterns of names.
    """
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def write_pairs(
    prefix: Path,
    languages: tuple[str, str],
    dictionaries: Sequence[Any],
    pairs: Iterable[tuple[Tensor, Tensor]],
) -> tuple[int, int]:
    """Binarise `pairs`, each but once.

    Args:
        prefix: of the files, up to the language: `FOLDER/train.de-en`.
        languages: of the sides of `pairs`.
        pairs: two sides, which end in `</s>`.

    Returns:
        How many were written, and how many left out because the same pair was there before.
    """
    from fairseq.data.indexed_dataset import make_builder

    builders = [
        make_builder(f"{prefix}.{language}.bin", impl="mmap", vocab_size=len(dictionary))
        for language, dictionary in zip(languages, dictionaries, strict=True)
    ]
    seen: set[bytes] = set()
    num_repeated = 0
    for pair in pairs:
        tensors = [tensor.int() for tensor in pair]
        key = hashlib.blake2b(
            b"|".join(tensor.numpy().tobytes() for tensor in tensors), digest_size=16
        )
        if key.digest() in seen:
            num_repeated += 1
            continue
        seen.add(key.digest())
        for builder, tensor in zip(builders, tensors, strict=True):
            builder.add_item(tensor)
    for builder, language in zip(builders, languages, strict=True):
        builder.finalize(f"{prefix}.{language}.idx")
    return len(seen), num_repeated
