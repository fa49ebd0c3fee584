"""Results about heads as tables of text."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path

from admin_nmt.modules.head_names import KINDS, Head, Layout, format_layout, without
from admin_nmt.pruning.ablation import (
    ALL_BUT_ONE,
    ONE_HEAD,
    Ablation,
    agreement,
    best_of_layers,
    chosen_there,
)
from admin_nmt.pruning.importance import normalize_by_layer
from admin_nmt.pruning.records import Measurement
from admin_nmt.pruning.sweep import GROUPS, PruningCurve, checkpoint_names

#: Of significance.
LEVEL = 0.05


def importance_table(measurement: Measurement) -> str:
    """Normalised scores: a block per kind, a row per layer, a column per head."""
    from tabulate import tabulate

    examples = measurement.settings["num_examples"]
    unit = "tokens" if measurement.settings["granularity"] == "token" else "sentences"
    lines = [f"importance of the heads of {measurement.checkpoint}, norm 1 in each layer"]
    for kind, layers in normalize_by_layer(measurement.scores).items():
        rows = [
            [f"{kind}:{number}", *(f"{score:.3f}" for score in heads)]
            for number, heads in enumerate(layers, 1)
        ]
        width = max(map(len, layers), default=0)
        table = tabulate(rows, headers=["layer", *range(1, width + 1)], disable_numparse=True)
        lines += ["", f"{KINDS[kind]}, over {examples[kind]} {unit}", table]
    order = list(map(str, measurement.order()))
    lines += ["", f"least important: {' '.join(order[:8])}"]
    lines += [f"most important:  {' '.join(order[:-9:-1])}"]
    return "\n".join(lines)


def removal_report(
    layout: Layout,
    removed: Collection[Head],
    parameters: tuple[int, int],
    output: str,
) -> str:
    """What was removed, what is left, and what that saves.

    Args:
        layout: head counts before.
        removed: heads.
        parameters: their number before and after.
        output: the checkpoint.
    """
    after = without(layout, removed)
    lines = [f"{output}: {len(removed)} of {_total(layout)} heads removed"]
    for kind, counts in layout.items():
        lines.append(f"  {KINDS[kind]}: {sum(counts)} -> {sum(after[kind])}")
    before, now = parameters
    size = Path(output).stat().st_size / 2**20
    lines.append(f"  heads per layer: {format_layout(after)}")
    lines.append(f"  parameters: {before:,} -> {now:,} ({now - before:,}); file {size:.1f} MiB")
    return "\n".join(lines)


def _total(layout: Layout) -> int:
    return sum(sum(counts) for counts in layout.values())


def ablation_table(bleu: float, rows: Sequence[Ablation]) -> str:
    """One row per head and experiment; a star where both tests are below `LEVEL`."""
    from tabulate import tabulate

    titles = {ONE_HEAD: "without the head", ALL_BUT_ONE: "with this head only in its layer"}
    lines = [f"BLEU of the whole model: {bleu:.2f}"]
    for experiment, title in titles.items():
        chosen = [row for row in rows if row.experiment == experiment]
        if not chosen:
            continue
        table = tabulate(
            [
                (
                    row.head,
                    f"{row.bleu:.2f}",
                    f"{row.difference:+.2f}",
                    f"{row.p_bootstrap:.4f}",
                    f"{row.p_randomisation:.4f}",
                    "*" if _is_significant(row) else "",
                )
                for row in chosen
            ],
            headers=("head", "BLEU", "difference", "p (bs)", "p (ar)", ""),
            colalign=("left", "right", "right", "right", "right", "left"),
            disable_numparse=True,
        )
        significant = [row for row in chosen if _is_significant(row)]
        better = sum(row.difference > 0 for row in significant)
        lines += [
            "",
            title,
            table,
            f"{len(significant)} of {len(chosen)} differ significantly (* p < {LEVEL} in both "
            f"tests, not corrected for their number), {better} of them upwards",
        ]
        if experiment == ALL_BUT_ONE:
            cells = [
                (k, row.head, f"{row.difference:+.2f}") for k, row in best_of_layers(rows).items()
            ]
            headers = ("layer", "head", "difference")
            lines += [
                "",
                "best single head of each layer, as chosen on this very set (--compare for another)",
                tabulate(cells, headers=headers, disable_numparse=True),
            ]
    return "\n".join(lines)


def _is_significant(row: Ablation) -> bool:
    return max(row.p_bootstrap, row.p_randomisation) < LEVEL


def comparison(ours: Sequence[Ablation], theirs: Sequence[Ablation], name: str) -> str:
    """What two test sets say of the same model: agreement on single heads, and the heads that are best
    alone in their layer by the results `name`, measured here."""
    from tabulate import tabulate

    lines = []
    count, r = agreement(ours, theirs)
    if count:
        value = "undefined" if math.isnan(r) else f"r = {r:.2f}"
        lines.append(f"agreement with {name} on {count} heads: Pearson {value}")
    cells = [
        (layer, head, f"{there:+.2f}", f"{here:+.2f}")
        for layer, head, there, here in chosen_there(ours, theirs)
    ]
    if cells:
        headers = ("layer", "head", "difference there", "here")
        lines += [
            f"with one head only in its layer, the one that is best in {name}",
            tabulate(cells, headers=headers, disable_numparse=True),
        ]
    return "\n".join(lines) or f"{name} has no head in common with these results"


def sweep_table(curves: Sequence[PruningCurve]) -> str:
    """BLEU by share of removed heads: a row per step, a column per curve."""
    from tabulate import tabulate

    names = checkpoint_names(curves)
    headers = ["removed"] + [
        f"{GROUPS[curve.group]}\n{curve.order}" + (f"\n{names[curve.checkpoint]}" if names else "")
        for curve in curves
    ]
    rows = [
        [f"{100 * points[0].fraction:g}%", *(f"{point.bleu:.2f}" for point in points)]
        for points in zip(*(curve.points for curve in curves), strict=True)
    ]
    return tabulate(rows, headers=headers, disable_numparse=True, stralign="right")
