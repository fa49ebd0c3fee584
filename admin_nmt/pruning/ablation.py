"""What each head does alone: BLEU without it, and BLEU of its layer with it only.

Sections 3.1 and 3.2 of arXiv 1905.10650. Each difference comes with the p-values of two paired
tests against the whole model; they are not corrected for the number of heads.
"""

import dataclasses
import logging
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from admin_nmt.errors import UsageError, UserError
from admin_nmt.evaluation.significance import compare_systems
from admin_nmt.json_files import read_document, write_document
from admin_nmt.modules.head_names import Head, Layout, all_heads
from admin_nmt.progress import progress
from admin_nmt.pruning.masked_translation import MaskedTranslator

logger = logging.getLogger(__name__)

ONE_HEAD, ALL_BUT_ONE = EXPERIMENTS = ("one-head", "all-but-one")
DOCUMENT, VERSION = "ablation", 1


@dataclass(frozen=True)
class Ablation:
    """One setting.

    Attributes:
        experiment: `one-head`: without `head`; `all-but-one`: its layer has no other head.
        head: name.
        bleu: of the translation.
        difference: to the whole model's BLEU.
        p_bootstrap: of paired bootstrap resampling.
        p_randomisation: of approximate randomisation.
    """

    experiment: str
    head: str
    bleu: float
    difference: float
    p_bootstrap: float
    p_randomisation: float


def settings_of(
    layout: Layout, experiments: Sequence[str], kinds: Collection[str]
) -> list[tuple[str, Head, set[Head]]]:
    """(experiment, head, heads to mask), for all heads of the `kinds`.

    In a layer with one head there is no other to mask: `all-but-one` leaves it out.
    """
    settings = []
    for experiment in experiments:
        for head in all_heads(layout):
            if head.kind not in kinds:
                continue
            if experiment == ONE_HEAD:
                settings.append((experiment, head, {head}))
                continue
            count = layout[head.kind][head.layer - 1]
            others = {Head(head.kind, head.layer, h) for h in range(1, count + 1)} - {head}
            if others:
                settings.append((experiment, head, others))
    return settings


def ablate(
    translator: MaskedTranslator,
    experiments: Sequence[str] = EXPERIMENTS,
    kinds: Collection[str] = "EAD",
    *,
    num_bootstrap: int = 1000,
    num_randomisation: int = 1000,
    seed: int = 12345,
) -> tuple[float, list[Ablation]]:
    """Translate and test every setting.

    Returns:
        BLEU of the whole model, and a row for each setting.

    Raises:
        UsageError: the model has no heads to mask.
    """
    test_set = translator.test_set
    settings = settings_of(translator.loaded.layout, experiments, kinds)
    if not settings:
        raise UsageError(
            f"{translator.loaded.path}: no heads to mask with --experiments {' '.join(experiments)} "
            f"--kinds {''.join(kinds)}"
        )
    # In a layer of two heads, without one is the other alone: one translation serves both.
    needed = dict.fromkeys([frozenset[Head](), *(frozenset(removed) for *_, removed in settings)])
    missing = [removed for removed in needed if not translator.is_done(removed)]
    if len(missing) < len(needed):
        logger.info(
            "%d of %d translations are there already", len(needed) - len(missing), len(needed)
        )
    for removed in progress(logger, "translating", "settings", missing):
        translator.translate(removed)
    whole = translator.translate(())
    rows = []
    for experiment, head, removed in progress(logger, "testing", "settings", settings):
        comparison = compare_systems(
            {"whole": whole, "masked": translator.translate(removed)},
            test_set.references,
            metrics=("bleu",),
            lowercase=test_set.lowercase,
            target=test_set.target,
            num_bootstrap=num_bootstrap,
            num_randomisation=num_randomisation,
            seed=seed,
        )
        result = comparison.results[1]
        assert result.p_bootstrap is not None and result.p_randomisation is not None
        rows.append(
            Ablation(
                experiment,
                str(head),
                result.score,
                result.difference,
                float(result.p_bootstrap),
                float(result.p_randomisation),
            )
        )
    return test_set.bleu(whole), rows


def save_ablation(
    bleu: float, rows: Sequence[Ablation], described: dict[str, Any], path: Path
) -> None:
    """Write results as JSON; `described` says what was measured."""
    results = [dataclasses.asdict(row) for row in rows]
    write_document(path, DOCUMENT, VERSION, {**described, "bleu": bleu, "results": results})


def load_ablation(path: str | Path) -> tuple[dict[str, Any], list[Ablation]]:
    """Read what `save_ablation` wrote.

    Raises:
        UserError: another kind of file.
    """
    content = read_document(path, DOCUMENT, VERSION, "admin-nmt ablate")
    try:
        return content, [Ablation(**row) for row in content["results"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def require_same_model(described: Mapping[str, Any], fingerprint: str, path: str) -> None:
    """Refuse to compare with results of another model.

    Raises:
        UserError: the results of `path`, which `described` describes, are not of the model with
            this `fingerprint`.
    """
    if described.get("fingerprint") != fingerprint:
        raise UserError(
            f"--compare {path} is of another model ({described.get('checkpoint')}): give results of "
            "the same one on another test set"
        )


def difference_maps(
    rows: Sequence[Ablation], layout: Layout
) -> dict[str, dict[str, list[list[float]]]]:
    """Differences for a plot: title of the experiment -> kind -> layer -> head; NaN where none was
    measured. Experiments and kinds without rows are left out."""
    titles = {ONE_HEAD: "without the head", ALL_BUT_ONE: "only this head"}
    maps = {}
    for experiment, title in titles.items():
        found = {row.head: row.difference for row in rows if row.experiment == experiment}
        measured = {
            kind: [
                [found.get(str(Head(kind, layer, head)), math.nan) for head in range(1, count + 1)]
                for layer, count in enumerate(counts, 1)
            ]
            for kind, counts in layout.items()
            if any(name.startswith(kind) for name in found)
        }
        if measured:
            maps[title] = measured
    return maps


def agreement(ours: Sequence[Ablation], theirs: Sequence[Ablation]) -> tuple[int, float]:
    """Pearson correlation of the BLEU differences of single heads on two test sets (section 4.2).

    Returns:
        number of heads in both, and r; NaN if it is undefined.
    """
    a, b = ({row.head: row.difference for row in rows if row.experiment == ONE_HEAD}
            for rows in (ours, theirs))  # fmt: skip
    pairs = [(a[head], b[head]) for head in a if head in b]
    return len(pairs), pearson(pairs)


def best_of_layers(rows: Sequence[Ablation]) -> dict[str, Ablation]:
    """Layer, such as `E:3` -> the head that does best alone in it; the first of equals."""
    best: dict[str, Ablation] = {}
    for row in rows:
        layer = row.head.rpartition(":")[0]
        if row.experiment == ALL_BUT_ONE and (
            layer not in best or row.difference > best[layer].difference
        ):
            best[layer] = row
    return best


def chosen_there(
    ours: Sequence[Ablation], theirs: Sequence[Ablation]
) -> list[tuple[str, str, float, float]]:
    """All but one head removed, the head chosen on another test set (table 2 of the paper).

    On the set that chose it, the best of a layer's heads looks better than it is.

    Returns:
        layer, the head that was best there, its difference there, and here.
    """
    here = {row.head: row.difference for row in ours if row.experiment == ALL_BUT_ONE}
    return [
        (layer, row.head, row.difference, here[row.head])
        for layer, row in best_of_layers(theirs).items()
        if row.head in here
    ]


def pearson(pairs: Sequence[tuple[float, float]]) -> float:
    """Correlation of the two columns; NaN if one of them does not vary."""
    try:
        return statistics.correlation(*zip(*pairs, strict=True))
    except (statistics.StatisticsError, TypeError):  # fewer than two pairs, or a constant column
        return math.nan
