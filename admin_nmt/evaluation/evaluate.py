"""Translate a test set with a trained model and score it in every way that papers do.

Three kinds of figures, never to be mixed up:

- on detokenised text against an untouched reference: sacreBLEU, chrF2, TER;
- tokenised BLEU, on the tokens of the data folder with BPE joined;
- the same after splitting compounds, as WMT14 En-De papers report it.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.checkpoints.direction import find_direction, require_fitting_vocabulary
from admin_nmt.data import bpe
from admin_nmt.data.binarised import num_sentences
from admin_nmt.documents import write_json
from admin_nmt.errors import UserError
from admin_nmt.evaluation.decoding import SearchOptions
from admin_nmt.evaluation.generation import translate
from admin_nmt.evaluation.preparation import Preparation, read_preparation
from admin_nmt.evaluation.scoring import (
    Score,
    compound_split_bleu,
    detokenized_scores,
    score_table,
    tokenized_bleu,
)
from admin_nmt.evaluation.text import detokenize, read_lines, require_equal_counts
from admin_nmt.files import atomic_write, make_directory

HYPOTHESES = "hypotheses.detok"
TOKENIZED_HYPOTHESES = "hypotheses.tok"
REFERENCES = "references.detok"
TOKENIZED_REFERENCES = "references.tok"
SOURCES = "sources.detok"
SCORES = "scores.json"


@dataclass(frozen=True)
class Reference:
    """The reference of the detokenised scores.

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
        scores: detokenised ones first.
        directory: where the texts and `scores.json` are.
    """

    source: str
    target: str
    lowercase: bool
    reference: str
    num_sentences: int
    scores: list[Score]
    directory: Path


def evaluate(
    data: str | os.PathLike[str],
    path: str,
    *,
    subset: str = "test",
    source: str | None = None,
    target: str | None = None,
    reference: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    options: SearchOptions | None = None,
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
        output: folder for the results; None is `default_directory`.
        options: how to search.

    Raises:
        UserError: anything given that does not exist or does not fit; found before translating
            wherever that can be.
    """
    options = options or SearchOptions()
    checkpoints = [Checkpoint.open(name) for name in path.split(os.pathsep)]
    source, target = find_direction(data, subset, source, target, checkpoints[0].languages)
    for checkpoint in checkpoints:
        require_fitting_vocabulary(checkpoint, data, source, target)
    preparation = read_preparation(data)
    chosen = choose_reference(reference, preparation, subset, target)
    _require_parallel(chosen, num_sentences(data, subset, source, target), f"{subset} of {data}")
    directory = make_directory(output or default_directory(path, subset, source, target))
    translations = translate(data, path, subset, source, target, options)

    texts = _texts(translations.hypotheses, translations.references, chosen.lines, target)
    raw_source = preparation.raw.get(subset, {}).get(source)
    texts[SOURCES] = (
        read_lines(raw_source)
        if raw_source is not None and raw_source.exists()
        else detokenize([bpe.merge(line) for line in translations.sources], source)
    )
    # Before scoring: whatever goes wrong there, the translation is not lost.
    for name, lines in texts.items():
        _write_lines(directory / name, lines)
    scores = score_all(texts, chosen.origin, lowercase=preparation.lowercase)
    result = Evaluation(
        source=source,
        target=target,
        lowercase=preparation.lowercase,
        reference=chosen.origin,
        num_sentences=len(texts[HYPOTHESES]),
        scores=scores,
        directory=directory,
    )
    settings = {"data": str(data), "path": path, "subset": subset}
    figures = dataclasses.asdict(result) | {"directory": str(directory)}
    write_json(directory / SCORES, settings | dataclasses.asdict(options) | figures)
    return result


def default_directory(path: str, subset: str, source: str, target: str) -> Path:
    """`RUN/checkpoint_best.test.de-en` for the model `RUN/checkpoint_best.pt`."""
    first = Path(path.split(os.pathsep)[0])
    return first.with_name(f"{first.stem}.{subset}.{source}-{target}")


def choose_reference(
    given: str | os.PathLike[str] | None, preparation: Preparation, subset: str, target: str
) -> Reference:
    """The reference of the detokenised scores, as described in `evaluate`."""
    path = given if given is not None else preparation.raw.get(subset, {}).get(target)
    if path is not None:
        return Reference(str(path), read_lines(path))
    return Reference("binarised reference, detokenised (no raw reference was given)", None)


def _require_parallel(reference: Reference, count: int | None, subset: str) -> None:
    """Find out before translating that the reference is of another test set."""
    if reference.lines is not None and count not in (None, len(reference.lines)):
        raise UserError(
            f"unequal numbers of sentences: {reference.origin} has {len(reference.lines)} lines, "
            f"subset {subset} has {count}"
        )


def _texts(
    hypotheses: Sequence[str],
    references: Sequence[str] | None,
    raw_references: list[str] | None,
    target: str,
) -> dict[str, list[str]]:
    """File name -> lines, of all that is kept."""
    tokenized = [bpe.merge(line) for line in hypotheses]
    texts = {TOKENIZED_HYPOTHESES: tokenized, HYPOTHESES: detokenize(tokenized, target)}
    if references is not None:
        texts[TOKENIZED_REFERENCES] = [bpe.merge(line) for line in references]
        texts[REFERENCES] = detokenize(texts[TOKENIZED_REFERENCES], target)
    if raw_references is not None:
        texts[REFERENCES] = raw_references
    return texts


def score_all(texts: dict[str, list[str]], origin: str, *, lowercase: bool) -> list[Score]:
    """All scores that `texts` allows: tokenised ones need the tokenised reference.

    Raises:
        UserError: no reference at all, or not parallel.
    """
    if REFERENCES not in texts:
        raise UserError(
            "the data folder has no reference for this subset: give one with --reference "
            "(the translation has been kept)"
        )
    hypotheses, references = texts[HYPOTHESES], texts[REFERENCES]
    require_equal_counts("the translation", hypotheses, origin, references)
    scores = detokenized_scores(hypotheses, references, lowercase=lowercase)
    if TOKENIZED_REFERENCES in texts:
        tokenized = texts[TOKENIZED_HYPOTHESES], texts[TOKENIZED_REFERENCES]
        scores += [tokenized_bleu(*tokenized), compound_split_bleu(*tokenized)]
    return scores


def evaluation_report(evaluation: Evaluation) -> str:
    """The scores for people, with what must be known to quote them."""
    lines = [score_table(evaluation.scores), "", f"reference: {evaluation.reference}"]
    if evaluation.lowercase:
        lines.append("case: ignored, because the data was lower-cased (case:lc)")
    lines.append(f"translations, references and {SCORES}: {evaluation.directory}")
    return "\n".join(lines)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    with atomic_write(path) as stream:
        stream.writelines(f"{line}\n" for line in lines)
