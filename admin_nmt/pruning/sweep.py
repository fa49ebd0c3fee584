"""Curves of BLEU over the share of heads removed (figures 3 and 4 of arXiv 1905.10650).

Heads go in order of importance, or at random as a control; of all kinds together, or of one kind
while the others keep theirs. Importance is measured once, as in the paper, or again after each step
with the heads removed so far masked (`rerank`).
"""

import dataclasses
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from admin_nmt.errors import UsageError
from admin_nmt.json_files import write_document
from admin_nmt.modules.attention_kinds import ATTENTION_KINDS
from admin_nmt.modules.head_names import Head, Layout
from admin_nmt.progress import progress
from admin_nmt.pruning.loading import LoadedModel
from admin_nmt.pruning.masked_translation import MaskedTranslator, masked
from admin_nmt.pruning.policies import num_to_remove, random_order

logger = logging.getLogger(__name__)

DOCUMENT, VERSION = "sweep", 1
#: Letters of kinds that are pruned together -> title.
GROUPS = {"".join(ATTENTION_KINDS): "all heads"} | {
    letter: kind.short for letter, kind in ATTENTION_KINDS.items()
}


@dataclass(frozen=True)
class Point:
    """BLEU with some heads masked.

    Attributes:
        fraction: of the heads of the group that were to go.
        removed: their names.
        bleu: of the translation.
    """

    fraction: float
    removed: tuple[str, ...]
    bleu: float


@dataclass(frozen=True)
class PruningCurve:
    """Points of one checkpoint, one group of kinds, one order.

    Attributes:
        checkpoint: file.
        group: key of `GROUPS`.
        order: `importance`, `rerank`, or `random` with its seed.
        points: the fraction grows.
    """

    checkpoint: str
    group: str
    order: str
    points: tuple[Point, ...]


class PlannedCurve(NamedTuple):
    """A curve before it is measured.

    Attributes:
        group: key of `GROUPS`.
        order: as of `PruningCurve`.
        removed: the heads that go at each step.
    """

    group: str
    order: str
    removed: list[list[Head]]


@dataclass(frozen=True)
class SweepOptions:
    """Which curves there are.

    Attributes:
        groups: keys of `GROUPS`.
        step: share of the heads of a group per step.
        largest: last share.
        rerank: also measure importance again after each step.
        random_orders: random orders as a control.
        seed: of the first of them.

    Raises:
        UsageError: a step or a share out of range, or a negative number of orders.
    """

    groups: Sequence[str] = tuple(GROUPS)
    step: float = 0.1
    largest: float = 0.9
    rerank: bool = False
    random_orders: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        if self.random_orders < 0:
            raise UsageError(f"--random-orders {self.random_orders}: give a number of at least 0")
        _ = self.steps  # refuses what is out of range

    @property
    def steps(self) -> list[float]:
        """The share of heads removed at each step."""
        return fractions(self.step, self.largest)


def fractions(step: float, largest: float) -> list[float]:
    """0, step, 2 step, ... up to `largest`.

    Raises:
        UsageError: a step that is not positive, or a fraction above 1.
    """
    if not 0 < step <= 1:
        raise UsageError(f"--step {step:g}: give a fraction above 0 and up to 1")
    if not 0 <= largest <= 1:
        raise UsageError(f"--largest {largest:g}: give a fraction between 0 and 1")
    return [round(i * step, 9) for i in range(int(round(largest / step, 9)) + 1)]


def removed_by(
    order: Sequence[Head], layout: Layout, group: str, steps: Sequence[float]
) -> list[list[Head]]:
    """For each fraction the heads of the group that go: the first ones of `order`."""
    candidates = [head for head in order if head.kind in group]
    total = sum(sum(layout.get(kind, ())) for kind in group)
    return [candidates[: num_to_remove(fraction, total)] for fraction in steps]


def removed_reranked(
    measure_order: Callable[[Collection[Head]], Sequence[Head]],
    model: Any,
    layout: Layout,
    group: str,
    steps: Sequence[float],
) -> list[list[Head]]:
    """The same with importance measured after each step, the heads removed so far masked.

    Args:
        measure_order: measures the model, in which the heads it is given are masked; least
            important first.
        model: its heads are masked meanwhile.
        layout: head counts of the model.
        group: letters of the kinds.
        steps: fractions, growing.
    """
    total = sum(sum(layout.get(kind, ())) for kind in group)
    removed: list[Head] = []
    result = []
    for fraction in steps:
        missing = num_to_remove(fraction, total) - len(removed)
        if missing > 0:
            logger.info("%s: ranking again without %d of %d heads", group, len(removed), total)
            with masked(model, removed):
                order = measure_order(removed)
            left = [head for head in order if head.kind in group and head not in removed]
            removed = removed + left[:missing]
        result.append(list(removed))
    return result


def plan_curves(
    options: SweepOptions,
    loaded: LoadedModel,
    measure_order: Callable[[Collection[Head]], Sequence[Head]],
    known: Sequence[Head] | None = None,
) -> list[PlannedCurve]:
    """The curves of one checkpoint, group by group.

    Args:
        options: which.
        loaded: the model; its heads are masked meanwhile if `options` say rerank.
        measure_order: as of `removed_reranked`.
        known: all heads, the least important first; None is measured.

    Raises:
        UsageError: the model has no heads in any of the groups.
    """
    layout, steps = loaded.layout, options.steps
    groups = [group for group in options.groups if any(sum(layout.get(k, ())) for k in group)]
    if not groups:
        raise UsageError(
            f"{loaded.path}: no heads to remove with --groups {' '.join(options.groups)}"
        )
    order = measure_order(()) if known is None else known
    planned = []
    for group in groups:
        heads = removed_by(order, layout, group, steps)
        planned.append(PlannedCurve(group, "importance", heads))
        if options.rerank:
            heads = removed_reranked(measure_order, loaded.model, layout, group, steps)
            planned.append(PlannedCurve(group, "rerank", heads))
        for seed in range(options.seed, options.seed + options.random_orders):
            heads = removed_by(random_order(layout, seed), layout, group, steps)
            planned.append(PlannedCurve(group, f"random {seed}", heads))
    return planned


def translate_curves(
    translator: MaskedTranslator,
    planned: Sequence[PlannedCurve],
    steps: Sequence[float],
) -> list[PruningCurve]:
    """Measure BLEU of all points; those that are there already cost nothing.

    Args:
        translator: of one checkpoint.
        planned: its curves.
        steps: fractions.
    """
    todo = {translator.path(removed) for *_, points in planned for removed in points}
    missing = [path for path in todo if not path.exists()]
    if len(missing) < len(todo):
        logger.info("%d of %d points are there already", len(todo) - len(missing), len(todo))
    curves = []
    with progress(logger, "translating", "points", total=len(missing)) as bar:
        for group, order, points in planned:
            measured = []
            for fraction, removed in zip(steps, points, strict=True):
                known = translator.is_done(removed)
                bleu = translator.test_set.bleu(translator.translate(removed))
                bar.update(not known)
                measured.append(Point(fraction, tuple(map(str, sorted(removed))), bleu))
            curves.append(PruningCurve(translator.loaded.path, group, order, tuple(measured)))
    return curves


def save_curves(curves: Sequence[PruningCurve], described: dict[str, Any], path: Path) -> None:
    """Write curves as JSON; `described` says what was measured."""
    content = {**described, "curves": [dataclasses.asdict(curve) for curve in curves]}
    write_document(path, DOCUMENT, VERSION, content)


def checkpoint_names(curves: Sequence[PruningCurve]) -> dict[str, str]:
    """Checkpoint -> its name beside those of the others: that of the file, or the whole path where two
    runs have files of one name. Empty for curves of one checkpoint.

    Examples:
        >>> curves = [PruningCurve(path, "E", "rerank", ()) for path in ("a/best.pt", "b/best.pt")]
        >>> checkpoint_names(curves)
        {'a/best.pt': 'a/best.pt', 'b/best.pt': 'b/best.pt'}
    """
    paths = list(dict.fromkeys(curve.checkpoint for curve in curves))
    if len(paths) < 2:
        return {}
    stems = {path: Path(path).stem for path in paths}
    return stems if len(set(stems.values())) == len(paths) else {path: path for path in paths}


def sweep_panels(
    curves: Sequence[PruningCurve],
) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Title of a group -> label of a curve -> (percent of heads removed, BLEU), for a plot."""
    names = checkpoint_names(curves)
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for curve in curves:
        name = names.get(curve.checkpoint)
        label = f"{name} {curve.order}" if name else curve.order
        found.setdefault(GROUPS[curve.group], {})[label] = (
            [100 * point.fraction for point in curve.points],
            [point.bleu for point in curve.points],
        )
    return found
