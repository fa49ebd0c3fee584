"""Back-translation (Sennrich et al. 2016, arXiv 1511.06709): monolingual text of the target language, with
sources that a reverse model has translated from it, beside the genuine pairs.

    OUTPUT/translations/   the text in subwords, binarised, and what has been translated of it so far, a
                           file for every `PART_SENTENCES`
    OUTPUT/data-bin/       the genuine data folder, with the new pairs as one more training set
    OUTPUT/back-translation.json   what was made, and the `--upsample-primary` for the ratio asked for

fairseq reads `train`, `train1`, ... of a folder as one training set, of which `--upsample-primary N` takes
the first N times an epoch. A tag at the beginning of each translated source (Caswell et al. 2019, arXiv
1906.06442) tells the model which are which; sources drawn at random (Edunov et al. 2018, arXiv
1808.09381) need none, and are not hurt by one.

Interrupted, the same call goes on with the first part that is missing.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.data.archives import read_lines
from admin_nmt.data.data_folder import NUM_SPECIAL_SYMBOLS, joined_subsets, num_sentences
from admin_nmt.errors import UsageError, UserError, require_at_least_one
from admin_nmt.export.search import Search
from admin_nmt.export.translator import LineText
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
    text_pipeline_of,
    translate_parts,
    write_pairs,
)

logger = logging.getLogger(__name__)

TAG = "<BT>"
#: Says what was made; written last.
RESULT = "back-translation.json"
#: fairseq fills its dictionaries up to a multiple of this, with symbols that no text has.
_MULTIPLE, _FILLER = 8, "madeupword"


@dataclass(frozen=True)
class BackTranslated:
    """What became of the monolingual text.

    Attributes:
        data: the new data folder.
        source_lang, target_lang: of the model to be trained.
        subset: the training set of it that holds the new pairs: `train1`, or the next one.
        num_lines: of the text.
        num_pairs: new ones.
        left_out: why -> sentences, or translations, that make no pair.
        num_genuine: pairs of `train`.
        upsample_primary: how often an epoch should take these, for the ratio that was asked for.
        tag: at the beginning of the new sources; None without.
    """

    data: Path
    source_lang: str
    target_lang: str
    subset: str
    num_lines: int
    num_pairs: int
    left_out: dict[str, int]
    num_genuine: int
    upsample_primary: int
    tag: str | None


def back_translate(
    reverse: str | os.PathLike[str],
    data: str | os.PathLike[str],
    text: str | os.PathLike[str],
    output: str | os.PathLike[str],
    search: Search | None = None,
    *,
    tag: str | None = TAG,
    ratio: float = 1.0,
    clean_ratio: float = 3.0,
    threads: int | None = None,
    device: str = "auto",
    batch_tokens: int = 4000,
    part_sentences: int = PART_SENTENCES,
) -> BackTranslated:
    """A data folder of genuine and back-translated pairs.

    Args:
        reverse: a model from the language of `text` to the other one: a folder of `admin-nmt export`
            (fast), or a fairseq checkpoint.
        data: the data folder that it was trained on.
        text: raw sentences, one a line, plain or gzip.
        output: folder for everything.
        search: beam or sampling, and how many translations of a sentence become pairs.
        tag: goes before each new source. It takes the place of a filler of the dictionary, so that
            vocabularies keep their size; where there is none, they grow.
        ratio: new pairs for each genuine one in an epoch.
        clean_ratio: pairs are dropped in which one side has more than this many times the subwords of the other.
        threads: cores; default: all.
        device: `cpu`, `cuda` or `auto`.
        batch_tokens: most subwords in one batch, padding included.
        part_sentences: sentences in one file of translations.

    Raises:
        UserError: no such model, data or text, another vocabulary, no pair is left, or `output`
            holds translations of other text, or by another model or search.
        UsageError: a tag or ratio that makes no sense, or `output` lies in `data` or would replace it.
    """
    _require_sense(tag, ratio, clean_ratio)
    data = Path(data)
    require_own_output(data, Path(output), RESULT)
    output, search = make_directory(output), search or Search()
    backend, languages = load_translation_model(reverse, data, threads, device)
    pipeline = text_pipeline_of(reverse, data, languages)
    translations = make_directory(output / TRANSLATIONS)
    identity, earlier = identities(reverse)
    require_same_settings(translations / "settings.json", {
        "model": identity, **identity_of_data(data, languages), "text": _checksum(Path(text)),
        "search": asdict(search), "part_sentences": part_sentences,
    }, earlier={"model": earlier})  # fmt: skip
    # Of the text, and of its translations: target and source of the model to be trained.
    target, source = (load_dictionary(data, language) for language in languages)
    targets = _monolingual(Path(text), pipeline, languages[0], target, translations)
    parts = translate_parts(
        backend, targets, target, translations, search, batch_tokens, part_sentences
    )
    left_out: Counter[str] = Counter()
    pairs = _pairs(targets, parts, (source, target), clean_ratio, left_out)
    result = _write(data, output / "data-bin", languages, (source, target), pairs, tag, left_out)
    num_genuine = num_sentences(data, SUBSET, *languages[::-1]) or 0
    found = BackTranslated(
        data=output / "data-bin",
        source_lang=languages[1],
        target_lang=languages[0],
        subset=result[0],
        num_lines=len(targets),
        num_pairs=result[1],
        left_out={reason: number for reason, number in left_out.items() if number},
        num_genuine=num_genuine,
        upsample_primary=max(1, round(result[1] / (ratio * num_genuine))) if num_genuine else 1,
        tag=tag,
    )
    write_json(output / RESULT, asdict(found) | {"data": str(found.data)})
    return found


def _require_sense(tag: str | None, ratio: float, clean_ratio: float) -> None:
    if tag is not None and (
        not tag or tag.split() != [tag] or tag in ("<s>", "<pad>", "</s>", "<unk>")
    ):
        raise UsageError(f"--tag {tag!r}: give one word, such as {TAG}")
    if not ratio > 0:
        raise UsageError(f"--ratio {ratio}: give a number above 0")
    require_at_least_one("--clean-ratio", clean_ratio)


def _checksum(text: Path) -> str:
    try:
        found = sha256(text)
    except OSError as error:
        raise UserError(f"cannot read {text}: {error.strerror or error}") from error
    if next(read_lines(text, None), None) is None:
        raise UserError(f"{text} is empty: it must hold one sentence a line")
    return found


def _monolingual(
    path: Path, text: LineText, language: str, dictionary: Any, translations: Path
) -> Any:  # fmt: skip
    """The lines of `path` in subwords, each a tensor that ends in `</s>`; binarised once.

    They lie with the translations, whose settings say of which text they are.
    """
    from fairseq.data import data_utils
    from fairseq.data.indexed_dataset import make_builder

    folder = translations / "monolingual"
    if not folder.exists():
        total = sum(1 for _ in read_lines(path, None))
        lines = progress(
            logger, "subwords", "lines", read_lines(path, None), total=total, unit_scale=True
        )
        with atomic_folder(folder) as made:
            prefix = made / f"mono.{language}"
            builder = make_builder(f"{prefix}.bin", impl="mmap", vocab_size=len(dictionary))
            for line in lines:
                pieces = dictionary.encode_line(text.encode(line), add_if_not_exist=False)
                builder.add_item(pieces)
            builder.finalize(f"{prefix}.idx")
    return data_utils.load_indexed_dataset(str(folder / f"mono.{language}"), dictionary)


def _pairs(
    targets: Any,
    parts: Sequence[Path],
    dictionaries: tuple[Any, Any],
    clean_ratio: float,
    left_out: Counter[str],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Sources and targets that make sense as pairs; what makes none is counted."""
    source, target = dictionaries
    lines = progress(logger, "writing pairs", "lines", targets)
    for pieces, hypotheses in zip(lines, read_parts(parts), strict=True):
        if hypotheses is None:
            left_out["too long" if len(pieces) > 1 else "empty"] += 1
        for words in hypotheses or ():
            tokens = source.encode_line(words, add_if_not_exist=False)
            short, long = sorted((len(tokens) - 1, len(pieces) - 1))
            if not short:
                left_out["empty"] += 1
            elif long / short > clean_ratio:
                left_out["length ratio"] += 1
            elif words == target.string(pieces[:-1]):
                left_out["copy"] += 1
            else:
                yield tokens, pieces


def _write(
    data: Path,
    folder: Path,
    languages: tuple[str, str],
    dictionaries: tuple[Any, Any],
    pairs: Iterator[tuple[Tensor, Tensor]],
    tag: str | None,
    left_out: Counter[str],
) -> tuple[str, int]:
    """The new data folder; name of its new training set, and the number of pairs there."""
    genuine = joined_subsets(data, SUBSET, *languages[::-1])
    subset = f"{SUBSET}{len(genuine)}"
    # Named as the genuine ones: fairseq infers the direction from any file of the folder.
    pair = genuine[0].removeprefix(f"{SUBSET}.")
    with atomic_folder(folder) as made:
        copy_data(data, made)
        if tag is not None:
            place = torch.tensor([_add_tag(made, languages, tag)])
            pairs = ((torch.cat([place, tokens]), pieces) for tokens, pieces in pairs)
        num_pairs, left_out["repeated"] = write_pairs(
            made / f"{subset}.{pair}", languages[::-1], dictionaries, pairs
        )
        if not num_pairs:
            reasons = ", ".join(
                f"{number} {reason}" for reason, number in left_out.items() if number
            )
            raise UserError(f"no pair is left of the text ({reasons}): look at {folder.parent}")
    return subset, num_pairs


def _add_tag(folder: Path, languages: tuple[str, str], tag: str) -> int:
    """Give `tag` a place in the dictionary of the source language, or in the joined one of both.

    Returns:
        The place.
    """
    target, source = (folder / f"dict.{language}.txt" for language in languages)
    # Not `splitlines`: symbols may hold other line separators.
    lines = source.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    symbols = [line.rsplit(" ", 1)[0] for line in lines]
    is_joined = source.read_bytes() == target.read_bytes()
    fillers = [index for index, symbol in enumerate(symbols) if symbol.startswith(_FILLER)]
    if tag in symbols:
        return NUM_SPECIAL_SYMBOLS + symbols.index(tag)
    if fillers:
        index = fillers[0]
        lines[index] = f"{tag} 0"
    else:
        index = len(lines)
        lines.append(f"{tag} 0")
        missing = -(len(lines) + NUM_SPECIAL_SYMBOLS) % _MULTIPLE
        lines += [f"{_FILLER}{number:04d} 0" for number in range(missing)]
        logger.warning(
            "the vocabulary grows for %s: checkpoints of the genuine data alone do not fit the new folder",
            tag,
        )
    content = "".join(f"{line}\n" for line in lines)
    for path in (source, target) if is_joined else (source,):
        path.write_text(content, encoding="utf-8", newline="\n")
    return NUM_SPECIAL_SYMBOLS + index
