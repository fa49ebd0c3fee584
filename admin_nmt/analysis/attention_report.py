"""Attention statistics as JSON, CSV, a table and plots."""

import csv
import io
import logging
import os
import statistics
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from torch import Tensor

from admin_nmt.analysis.attention import QUANTITIES, AttentionStatistics
from admin_nmt.analysis.plots import plot_distributions, plot_head_maps
from admin_nmt.files import atomic_write
from admin_nmt.json_files import write_json
from admin_nmt.modules.head_names import KINDS
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

#: A violin of more points looks the same and takes longer.
_DRAWN = 2000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def statistics_rows(label: str, found: AttentionStatistics) -> list[dict[str, Any]]:
    """One row per quantity, kind, layer and head: mean and quantiles over tokens. Heads without a
    counterpart in the layer below have no divergence."""
    rows = []
    for quantity, places in found.values.items():
        for (kind, layer), heads in places.items():
            for head, numbers in enumerate(heads, 1):
                if numbers.isnan().any():
                    continue
                rows.append(
                    {"model": label, "quantity": quantity, "kind": kind, "layer": layer,
                     "head": head, "num_tokens": numbers.numel(), "mean": numbers.mean().item()}
                    | _quantiles(numbers)
                )  # fmt: skip
    return rows


def _quantiles(numbers: Tensor) -> dict[str, float]:
    found = np.quantile(numbers.numpy(), QUANTILES)  # PyTorch's takes 16 million numbers at most
    return {f"q{round(100 * q):02}": x for q, x in zip(QUANTILES, found.tolist(), strict=True)}


def table(models: Mapping[str, AttentionStatistics]) -> str:
    """Mean over heads of the medians, by quantity and kind, and the share of the encoder output
    that differs by position; a column per model."""
    rows = []
    for quantity in QUANTITIES:
        for kind, name in KINDS.items():
            row: list[Any] = [quantity, name]
            for found in models.values():
                heads = [x for layer in found.medians(quantity).get(kind, []) for x in layer]
                finite = [x for x in heads if x == x]
                row.append(f"{statistics.fmean(finite):.3f}" if finite else "-")
            rows.append(row)
    shares = [found.position_share for found in models.values()]
    rows.append(["differs by position", "encoder output", *(f"{share:.3g}" for share in shares)])
    headers = ["mean over heads of the median", "attention", *models]
    aligned = ("left", "left", *["right"] * len(models))
    # Text stays as it is: a collapsed encoder's 1e-13 must not become 0.000.
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=aligned)


def write_report(
    models: Mapping[str, AttentionStatistics],
    output: str | os.PathLike[str],
    settings: Mapping[str, Any],
) -> None:
    """`heads.csv`, `attention.json` and the plots of all models into the folder `output`."""
    output = Path(output)
    rows = [row for label, found in models.items() for row in statistics_rows(label, found)]
    content = {
        "settings": dict(settings),
        "num_tokens": {label: found.num_tokens for label, found in models.items()},
        "position_share": {label: found.position_share for label, found in models.items()},
        "heads": rows,
    }
    write_json(output / "attention.json", content)
    with atomic_write(output / "heads.csv", errors="backslashreplace") as stream:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        stream.write(text.getvalue())
    for quantity, label in QUANTITIES.items():
        maps = {title: found.medians(quantity) for title, found in models.items()}
        plot_head_maps(maps, output / f"{quantity}-heads.png", label=f"median {label}")
    charts = list(product(QUANTITIES, KINDS))
    for quantity, kind in progress(logger, "plot", "charts", charts):
        panels = {title: numbers_by_layer(found, quantity, kind) for title, found in models.items()}
        if any(panels.values()):
            name = KINDS[kind]
            path = output / f"{quantity}-{name.replace(' ', '-')}.png"
            top = 1.0 if quantity == "divergence" else None
            plot_distributions(panels, path, ylabel=QUANTITIES[quantity], title=name, highest=top)


def numbers_by_layer(
    found: AttentionStatistics, quantity: str, kind: str
) -> dict[int, list[list[float]]]:
    """layer -> head -> numbers of up to `_DRAWN` tokens; heads with NaN are left out."""
    return {
        layer: heads[~heads.isnan().any(dim=1), :_DRAWN].tolist()
        for (which, layer), heads in found.values[quantity].items()
        if which == kind
    }
