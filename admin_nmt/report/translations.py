"""Scores and sample translations out of the folders that `admin-nmt evaluate` wrote."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from admin_nmt.errors import UserError
from admin_nmt.evaluation.evaluate import HYPOTHESES, REFERENCES, SCORES, SOURCES
from admin_nmt.evaluation.scoring import Score
from admin_nmt.evaluation.text import read_lines
from admin_nmt.json_files import read_json

#: Sentences of a test set that are shown.
NUM_SAMPLES = 12


@dataclass(frozen=True)
class Evaluated:
    """One scored translation.

    Attributes:
        name: of its folder.
        scores: as `admin-nmt evaluate` found them.
        directory: with the texts; None where only scores are known.
    """

    name: str
    scores: list[Score]
    directory: Path | None


@dataclass(frozen=True)
class ScoreTable:
    """Scores of all runs: a column per measure and signature, because only figures of one signature
    compare.

    Attributes:
        columns: (measure, signature).
        rows: (run, folder of the translation, figure of each column or None).
    """

    columns: list[tuple[str, str]]
    rows: list[tuple[str, str, list[float | None]]]


@dataclass(frozen=True)
class Sample:
    """One sentence: its number in the test set from 1, its texts, and (label, translation)."""

    number: int
    source: str | None
    reference: str
    hypotheses: list[tuple[str, str]]


def find_evaluations(folders: Iterable[Path]) -> list[Evaluated]:
    """All translations with scores directly in one of the folders.

    Raises:
        UserError: a `scores.json` has another form.
    """
    found = []
    for path in (folder / SCORES for folder in folders):
        if not path.is_file():
            continue
        try:
            scores = [
                Score(str(row["name"]), float(row["score"]), str(row["signature"]))
                for row in read_json(path)["scores"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} was not written by 'admin-nmt evaluate'") from error
        found.append(Evaluated(path.parent.resolve().name, scores, path.parent))
    return found


def score_table(evaluations: Sequence[tuple[str, Evaluated]]) -> ScoreTable:
    """The scores of (run, translation) side by side."""
    columns = list(
        dict.fromkeys(
            (score.name, score.signature) for _, found in evaluations for score in found.scores
        )
    )
    rows = []
    for label, found in evaluations:
        figures = {(score.name, score.signature): score.score for score in found.scores}
        rows.append((label, found.name, [figures.get(column) for column in columns]))
    return ScoreTable(columns, rows)


def sample_sets(
    evaluations: Sequence[tuple[str, Evaluated]], count: int = NUM_SAMPLES
) -> list[list[Sample]]:
    """Sentences at equal distances through each test set; runs with equal references share a set.

    Raises:
        UserError: texts in a folder that are not parallel.
    """
    several = {
        label for label, _ in evaluations if [name for name, _ in evaluations].count(label) > 1
    }
    sets: dict[tuple[str, ...], dict[str, list[str]]] = {}
    sources: dict[tuple[str, ...], list[str]] = {}
    for label, found in evaluations:
        folder = found.directory
        if folder is None or not all(
            (folder / name).is_file() for name in (HYPOTHESES, REFERENCES)
        ):
            continue
        references = tuple(read_lines(folder / REFERENCES))
        hypotheses = read_lines(folder / HYPOTHESES)
        if len(hypotheses) != len(references):
            raise UserError(
                f"{folder}: {HYPOTHESES} has {len(hypotheses)} lines, {REFERENCES} {len(references)}"
            )
        name = f"{label} ({found.name})" if label in several else label
        sets.setdefault(references, {})[name] = hypotheses
        if (folder / SOURCES).is_file():
            lines = read_lines(folder / SOURCES)
            if len(lines) == len(references):
                sources.setdefault(references, lines)
    return [
        [
            Sample(
                place + 1,
                sources[references][place] if references in sources else None,
                references[place],
                [(name, lines[place]) for name, lines in systems.items()],
            )
            for place in spread(len(references), count)
        ]
        for references, systems in sets.items()
    ]


def spread(total: int, count: int) -> list[int]:
    """At most `count` places of 0 .. total - 1 at equal distances."""
    return sorted({place * total // count for place in range(count)}) if total else []
