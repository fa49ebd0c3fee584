"""Results about heads for people: tables of text."""

from collections.abc import Collection
from pathlib import Path

from admin_nmt.modules.heads import KINDS, Head, Layout, format_layout, without
from admin_nmt.pruning.heads import Measurement
from admin_nmt.pruning.importance import normalize_by_layer


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
