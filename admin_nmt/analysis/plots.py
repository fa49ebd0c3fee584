"""Plots as files (PNG, PDF or SVG by the file's ending); no display is needed."""

import itertools
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from admin_nmt.analysis.training_log import Curve
from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write
from admin_nmt.modules.head_names import KINDS

if TYPE_CHECKING:  # importing it would import fairseq, which curves do not need
    from admin_nmt.initialization.profile import Profile


def _figure(columns: int) -> tuple[Any, Any]:
    # The object interface, not pyplot: no global state, no display, safe in any process.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 3.8), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def plain(name: str) -> str:
    """A user's name as text of a plot: no formula between dollar signs, and what is not UTF-8 escaped.

    >>> plain("runs/$a$")
    'runs/\\\\$a\\\\$'
    """
    return name.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure of matplotlib, whole or not at all; PNG where `path` has no ending.

    Raises:
        UserError: the file cannot be written, or no plot has this ending.
    """
    try:
        with atomic_write(path, "wb") as stream:
            figure.savefig(stream, format=Path(path).suffix[1:] or "png", dpi=150)
    except ValueError as error:
        raise UserError(f"cannot write plot {path}: {error}") from error


def plot_profile(profile: "Profile", path: str | os.PathLike[str]) -> None:
    """omega (left) and the variance of the branches (right) by sublayer, both stacks."""
    figure, (left, right) = _figure(2)
    for stack in ("encoder", "decoder"):
        entries = list(profile.stack(stack).values())
        positions = range(1, len(entries) + 1)
        omegas = [
            sum(entry.omega) / len(entry.omega) if isinstance(entry.omega, list) else entry.omega
            for entry in entries
        ]
        left.plot(positions, omegas, marker=".", markersize=3, label=stack)
        variances = [entry.branch_variance for entry in entries]
        if None not in variances:
            right.plot(positions, variances, marker=".", markersize=3, label=stack)
    left.set(xlabel="sublayer", ylabel="factor on the shortcut, omega")
    right.set(xlabel="sublayer", ylabel="variance of the branch, Var[f]")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    name = Path(str(profile.measured.get("arch", ""))).name
    if name:
        figure.suptitle(f"{plain(name)}, init {profile.measured.get('init_type', '')}", fontsize=10)
    save_figure(figure, path)


def plot_curves(
    curves: Mapping[str, Curve],
    path: str | os.PathLike[str],
    *,
    ylabel: str,
    title: str = "",
    levels: Mapping[str, float] | None = None,
    log_scale: bool = False,
) -> None:
    """Several runs' curves over updates in one picture.

    Args:
        curves: label -> curve.
        path: file to write.
        ylabel: of the axis.
        title: above the picture.
        levels: label -> height of a gray line, such as the perplexity of word frequencies.
        log_scale: logarithmic height.
    """
    figure, (axes,) = _figure(1)
    for label, curve in curves.items():
        axes.plot(curve.updates, curve.values, label=plain(label))
    styles = itertools.cycle(("--", ":", "-."))
    for (label, height), style in zip((levels or {}).items(), styles, strict=False):
        axes.axhline(height, linestyle=style, color="gray", linewidth=1, label=plain(label))
    axes.set(xlabel="updates", ylabel=ylabel, title=title)
    if log_scale:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def plot_head_maps(
    maps: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    path: str | os.PathLike[str],
    *,
    label: str,
    diverging: bool = False,
) -> None:
    """Heat maps of a number per attention head: a row of panels per entry, a column per kind.

    Args:
        maps: title of the row -> kind (`E`, `A`, `D`) -> layer -> head -> number; NaN is left white.
        path: file to write.
        label: of the colour bar.
        diverging: colours around 0 instead of upwards from the smallest number.
    """
    from matplotlib.figure import Figure

    kinds = [kind for kind in KINDS if any(rows.get(kind) for rows in maps.values())]
    figure = Figure(figsize=(3.4 * len(kinds) + 1.2, 3.2 * len(maps)), layout="constrained")
    grid = figure.subplots(len(maps), len(kinds), squeeze=False)
    flat = [
        x for rows in maps.values() for layers in rows.values() for heads in layers for x in heads
    ]
    finite = [x for x in flat if x == x] or [0.0]
    low, high = min(finite), max(finite)
    if diverging:
        low, high = -max(map(abs, finite)), max(map(abs, finite))
    image: Any = None
    for axes_row, (title, rows) in zip(grid, maps.items(), strict=True):
        for axes, kind in zip(axes_row, kinds, strict=True):
            layers = rows.get(kind, ())
            width = max(map(len, layers), default=1) or 1
            table = [[*heads, *[float("nan")] * (width - len(heads))] for heads in layers]
            image = axes.imshow(
                table or [[float("nan")]],
                vmin=low,
                vmax=high,
                cmap="RdBu" if diverging else "viridis",
                aspect="auto",
                extent=(0.5, width + 0.5, len(layers) + 0.5, 0.5),
            )
            axes.set(title=f"{KINDS[kind]} {plain(title)}".strip(), xlabel="head", ylabel="layer")
            axes.title.set_fontsize(9)
            axes.locator_params(integer=True)
    figure.colorbar(image, ax=grid, label=label)
    save_figure(figure, path)


def plot_panels(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    path: str | os.PathLike[str],
    *,
    xlabel: str,
    ylabel: str,
) -> None:
    """Panels side by side: title -> label of a curve -> (x, y); curves named alike look alike."""
    figure, every = _figure(len(panels))
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    for axes, (title, curves) in zip(every, panels.items(), strict=True):
        for label, (x, y) in curves.items():
            style = ":" if "random" in label else "-"
            color = f"C{labels.index(label) % 10}"
            axes.plot(x, y, linestyle=style, color=color, marker=".", label=plain(label))
        axes.set(xlabel=xlabel, ylabel=ylabel, title=plain(title), ylim=(0, None))
        if all(isinstance(value, int) for x, _ in curves.values() for value in x):
            axes.locator_params(axis="x", integer=True)  # no half layers
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, path)


def plot_distributions(
    models: Mapping[str, Mapping[int, Sequence[Sequence[float]]]],
    path: str | os.PathLike[str],
    *,
    ylabel: str,
    title: str,
    highest: float | None = None,
) -> None:
    """A violin per layer and head, coloured by its median; a panel per model, all on one scale.

    Args:
        models: title of the panel -> layer -> head -> numbers.
        path: file to write.
        ylabel: what the numbers are.
        title: above everything.
        highest: top of the scale; default: the largest number there is.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    def numbers_of_all() -> Iterator[float]:
        for layers in models.values():
            for heads in layers.values():
                yield from (max(numbers) for numbers in heads)

    top = highest or max(numbers_of_all(), default=0.0) or 1.0
    width = max((len(layers) for layers in models.values()), default=1)
    size = (max(6.0, min(2.5 + 0.7 * width, 24)), 2.6 * len(models) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    for axes, (label, layers) in zip(
        figure.subplots(len(models), 1, squeeze=False)[:, 0], models.items(), strict=True
    ):
        for layer, heads in layers.items():
            for index, numbers in enumerate(heads):
                place = layer + 0.8 * ((index + 0.5) / len(heads) - 0.5)
                (body,) = axes.violinplot(
                    [numbers], [place], widths=0.75 / len(heads), showextrema=False
                )["bodies"]
                body.set(color=colormaps["coolwarm"](statistics.median(numbers) / top), alpha=0.9)
        axes.set(ylabel=ylabel, title=plain(label), ylim=(0, top), xlabel="layer")
        axes.title.set_fontsize(9)
        axes.yaxis.label.set_fontsize(8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"{title}: heads coloured by their median", fontsize=10)
    save_figure(figure, path)
