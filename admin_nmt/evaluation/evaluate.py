"""Translate a test set with a trained model and score it in every way that papers do.

The scores are of three kinds, which do not compare with each other:

- on detokenised text against untouched references: sacreBLEU, chrF2, chrF2++, TER, COMET;
- tokenised BLEU, on the tokens of the data folder with BPE joined;
- the same after splitting compounds, as WMT14 En-De papers report it.

A folder prepared with SentencePiece has no tokens, so only the first kind.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.checkpoints.direction import find_direction, require_fitting_vocabulary
from admin_nmt.data.data_folder import num_sentences
from admin_nmt.errors import UserError
from admin_nmt.evaluation.comet import comet_score, require_comet
from admin_nmt.evaluation.decoding import SearchOptions
from admin_nmt.evaluation.generation import translate
from admin_nmt.evaluation.preparation import Preparation, read_preparation
from admin_nmt.evaluation.scoring import (
    Score,
    build_metrics,
    compound_split_bleu,
    detokenized_scores,
    score_table,
    tokenized_bleu,
)
from admin_nmt.evaluation.text import read_lines, require_equal_counts
from admin_nmt.files import atomic_write, make_directory
from admin_nmt.json_files import read_json_object, write_json

HYPOTHESES = "hypotheses.detok"
TOKENIZED_HYPOTHESES = "hypotheses.tok"
REFERENCES = "references.detok"
TOKENIZED_REFERENCES = "references.tok"
SOURCES = "sources.detok"
SCORES = "scores.json"
#: Entries of `SCORES` that tell evaluations apart, and what they are called. Sizes of batches and the
#: machine are not among them, nor are references, against which the translation is scored again.
_IDENTITY = {
    "data": "DATA folder",
    "path": "--path",
    "subset": "--gen-subset",
    "source": "--source-lang",
    "target": "--target-lang",
    "beam": "--beam",
    "lenpen": "--lenpen",
    "fp16": "--fp16",
}
#: Those of them that are names of files and folders. `SCORES` has them as they were given and, under
#: `_PLACES`, where they were: in full, and seen from the folder of the scores, which tells the same
#: model after that folder was moved or copied together with it.
_NAMES = ("data", "path")
_PLACES = "places"


@dataclass(frozen=True)
class RawText:
    """One side of a test set as it was before preparation: a reference of the detokenised scores, or the source.

    Attributes:
        origin: a file name, or what the text was made from.
        lines: N sentences, None if they are to come from the data folder's binarised side.
    """

    origin: str
    lines: list[str] | None


@dataclass(frozen=True)
class Evaluation:
    """A scored translation.

    Attributes:
        source: language code.
        target: language code.
        lowercase: whether case was ignored.
        reference: what the detokenised scores were computed against.
        scores: detokenised ones first, COMET last.
        directory: where the texts and `scores.json` are.
        more_references: further references, their files.
    """

    source: str
    target: str
    lowercase: bool
    reference: str
    num_sentences: int
    scores: list[Score]
    directory: Path
    more_references: list[str] = field(default_factory=list)


def evaluate(
    data: str | os.PathLike[str],
    path: str,
    *,
    subset: str = "test",
    source: str | None = None,
    target: str | None = None,
    reference: str | os.PathLike[str] | None = None,
    more_references: Sequence[str | os.PathLike[str]] = (),
    output: str | os.PathLike[str] | None = None,
    options: SearchOptions | None = None,
    comet: str | os.PathLike[str] | None = None,
    tokenize: str | None = None,
) -> Evaluation:
    """Translate, score, and keep everything in one folder.

    Args:
        data: folder made by `fairseq-preprocess` or `admin-nmt prepare`.
        path: a checkpoint, or several joined by `:`, which then translate together.
        subset: such as `test` or `valid`.
        source: language code; None leaves it to the checkpoint and the names of the files.
        target: language code; None as well.
        reference: untouched reference, one sentence a line. None: the one that `preparation.json`
            names, else the binarised reference, detokenised.
        more_references: further ones for the detokenised scores.
        output: folder for the results; None is `default_directory`.
        options: how to search.
        comet: folder of a COMET model (`evaluation.comet`); None leaves that measure out.
        tokenize: sacreBLEU's tokeniser for BLEU; None is its default for the target language.

    Raises:
        UserError: anything given that does not exist or does not fit, or a folder that has the results
            of another model, data set or search; found before translating wherever that can be.
    """
    options = options or SearchOptions()
    if comet is not None:
        require_comet(comet)
    checkpoints = [Checkpoint.open(name) for name in path.split(os.pathsep)]
    source, target = find_direction(data, subset, source, target, checkpoints[0].languages)
    build_metrics(tokenize=tokenize, target=target)  # a tokeniser that is not there is found now
    for checkpoint in checkpoints:
        require_fitting_vocabulary(checkpoint, data, source, target)
    preparation = read_preparation(data)
    chosen = [choose_reference(reference, preparation, subset, target)]
    chosen += [RawText(str(path), read_lines(path)) for path in more_references]
    count = num_sentences(data, subset, source, target)
    raw_source = preparation.raw.get(subset, {}).get(source)
    sources = None if raw_source is None or not raw_source.exists() else read_lines(raw_source)
    for each in (*chosen, RawText(str(raw_source), sources)):
        _require_parallel(each, count, f"{subset} of {data}")
    settings = {"data": str(data), "path": path, "subset": subset} | dataclasses.asdict(options)
    directory = Path(output or default_directory(path, subset, source, target))
    places = {name: _places(name, settings[name], directory) for name in _NAMES}
    languages = {"source": source, "target": target}
    _require_same_evaluation(directory, settings | languages | {_PLACES: places})
    make_directory(directory)
    translations = translate(data, path, subset, source, target, options)

    texts = _texts(translations.hypotheses, translations.references, chosen, preparation, target)
    texts[SOURCES] = preparation.text(translations.sources, source) if sources is None else sources
    # Before scoring: whatever goes wrong there, the translation is not lost.
    _keep(directory, texts)
    origins = [each.origin for each in chosen]
    scores = score_all(
        texts, origins, lowercase=preparation.lowercase, tokenize=tokenize, target=target
    )
    if comet is not None:
        sets = [texts[name] for name in _reference_files(len(chosen))]
        scores.append(comet_score(comet, texts[SOURCES], texts[HYPOTHESES], sets, cpu=options.cpu))
    result = Evaluation(
        source=source,
        target=target,
        lowercase=preparation.lowercase,
        reference=origins[0],
        more_references=origins[1:],
        num_sentences=len(texts[HYPOTHESES]),
        scores=scores,
        directory=directory,
    )
    figures = dataclasses.asdict(result) | {"directory": str(directory)}
    write_json(directory / SCORES, settings | figures | {_PLACES: places})
    return result


def default_directory(path: str, subset: str, source: str, target: str) -> Path:
    """`RUN/checkpoint_best.test.de-en` for the model `RUN/checkpoint_best.pt`, `RUN/a+b.test.de-en` for
    `RUN/a.pt:OTHER/b.pt`."""
    files = [Path(name) for name in path.split(os.pathsep)]
    names = "+".join(file.stem for file in files)
    return files[0].with_name(f"{names}.{subset}.{source}-{target}")


def _require_same_evaluation(directory: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder with the scores of another model, data set or search, which would be lost."""
    if not (directory / SCORES).exists():
        return
    before = read_json_object(directory / SCORES, f"delete {directory}")
    # Files of earlier versions have no places, or fewer entries.
    places = before.get(_PLACES, {})
    for name, option in _IDENTITY.items():
        if name not in before:
            continue
        if name in _NAMES:
            then = places.get(name) or _places(name, before[name], directory)
            same = _same_places(then, settings[_PLACES][name], directory)
            was, now = map(_in_full, (then, settings[_PLACES][name]))
        else:
            was, now = str(before[name]), str(settings[name])
            same = before[name] == settings[name]
        if not same:
            raise UserError(
                f"{directory} holds an evaluation with another {option} ({was}, now {now}): give "
                "another --output, or remove that folder"
            )


def _places(name: str, value: str, directory: Path) -> list[dict[str, str]]:
    """Where the folder or each of the checkpoints is: in full, and seen from `directory`."""
    files = [
        Path(part).resolve() for part in (value.split(os.pathsep) if name == "path" else [value])
    ]
    home = directory.resolve()
    return [{"absolute": str(file), "relative": os.path.relpath(file, home)} for file in files]


def _same_places(
    before: Sequence[Mapping[str, str]], now: Sequence[Mapping[str, str]], directory: Path
) -> bool:
    """Whether each is where it was, or where it was as seen from `directory`."""
    home = directory.resolve()
    return len(before) == len(now) and all(
        Path(new["absolute"])
        in (Path(old["absolute"]).resolve(), (home / old["relative"]).resolve())
        for old, new in zip(before, now, strict=True)
    )


def _in_full(places: Sequence[Mapping[str, str]]) -> str:
    return os.pathsep.join(place["absolute"] for place in places)


def choose_reference(
    given: str | os.PathLike[str] | None, preparation: Preparation, subset: str, target: str
) -> RawText:
    """The reference of the detokenised scores, as described in `evaluate`."""
    path = given if given is not None else preparation.raw.get(subset, {}).get(target)
    if path is not None:
        return RawText(str(path), read_lines(path))
    return RawText("binarised reference, detokenised (no raw reference was given)", None)


def _require_parallel(reference: RawText, count: int | None, subset: str) -> None:
    """Find out before translating that a raw text is of another test set."""
    if reference.lines is not None and count not in (None, len(reference.lines)):
        raise UserError(
            f"unequal numbers of sentences: {reference.origin} has {len(reference.lines)} lines, "
            f"subset {subset} has {count}"
        )


def _texts(
    hypotheses: Sequence[str],
    references: Sequence[str] | None,
    chosen: Sequence[RawText],
    preparation: Preparation,
    target: str,
) -> dict[str, list[str]]:
    """File name -> lines, of all that is kept."""
    texts = {HYPOTHESES: preparation.text(hypotheses, target)}
    if preparation.subwords.moses:
        texts[TOKENIZED_HYPOTHESES] = preparation.words(hypotheses)
    if references is not None:
        texts[REFERENCES] = preparation.text(references, target)
        if preparation.subwords.moses:
            texts[TOKENIZED_REFERENCES] = preparation.words(references)
    for name, reference in zip(_reference_files(len(chosen)), chosen, strict=True):
        if reference.lines is not None:
            texts[name] = reference.lines
    return texts


def _reference_files(count: int) -> list[str]:
    """`references.detok`, `references.2.detok` and so on."""
    return [REFERENCES, *(_reference_file(str(number)) for number in range(2, count + 1))]


def _reference_file(number: str) -> str:
    return f"references.{number}.detok"


def score_all(
    texts: dict[str, list[str]],
    origins: Sequence[str],
    *,
    lowercase: bool,
    tokenize: str | None = None,
    target: str = "",
) -> list[Score]:
    """All scores of sacreBLEU that `texts` allows: tokenised ones need the tokenised reference.

    Args:
        texts: file name -> lines, of what is kept.
        origins: what each reference is.
        lowercase: ignore case.
        tokenize: as in `evaluate`.
        target: language code.

    Raises:
        UserError: no reference at all, or not parallel.
    """
    if REFERENCES not in texts:
        raise UserError(
            "the data folder has no reference for this subset: give one with --reference "
            "(the translation has been kept)"
        )
    hypotheses = texts[HYPOTHESES]
    references = [texts[name] for name in _reference_files(len(origins))]
    for origin, lines in zip(origins, references, strict=True):
        require_equal_counts("the translation", hypotheses, origin, lines)
    scores = detokenized_scores(
        hypotheses,
        references[0],
        more_references=references[1:],
        lowercase=lowercase,
        tokenize=tokenize,
        target=target,
    )
    if TOKENIZED_REFERENCES in texts:
        tokenized = texts[TOKENIZED_HYPOTHESES], texts[TOKENIZED_REFERENCES]
        scores += [tokenized_bleu(*tokenized), compound_split_bleu(*tokenized)]
    return scores


def evaluation_report(evaluation: Evaluation) -> str:
    """The scores as text, with what must be known to quote them."""
    references = ", ".join([evaluation.reference, *evaluation.more_references])
    lines = [score_table(evaluation.scores), "", f"reference: {references}"]
    if evaluation.lowercase:
        lines.append("case: ignored, because the data was lower-cased (case:lc)")
    lines.append(f"translations, references and {SCORES}: {evaluation.directory}")
    return "\n".join(lines)


def _keep(directory: Path, texts: dict[str, list[str]]) -> None:
    """Write all texts, and remove references of an earlier evaluation that had more of them."""
    for old in directory.glob(_reference_file("[0-9]*")):
        old.unlink()
    for name, lines in texts.items():
        with atomic_write(directory / name) as stream:
            stream.writelines(f"{line}\n" for line in lines)
