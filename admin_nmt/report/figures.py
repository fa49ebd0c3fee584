"""The report's figures, as plotly's own JSON; colours of text and grid are left to the page."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from admin_nmt.analysis.training_log import Curve, minutes_at
from admin_nmt.modules.head_names import KINDS
from admin_nmt.report.model_state import HeadMap, kinds_of
from admin_nmt.report.runs import Run

#: Points of a drawn curve; more look the same at a screen's width.
MOST_POINTS = 500


@dataclass(frozen=True)
class Panel:
    """One picture of curves.

    Attributes:
        title: above it.
        names: of the quantities in the log, without the prefix of a subset.
        unit: of the height.
        log_scale: logarithmic height.
    """

    title: str
    names: tuple[str, ...]
    unit: str
    log_scale: bool = False


PANELS = (
    Panel("Loss", ("loss",), "bits per token (per sentence with --sentence-avg)"),
    Panel("Negative log-likelihood (nll_loss)", ("nll_loss",), "bits per token"),
    Panel("Perplexity (ppl)", ("ppl",), "per token", log_scale=True),
    Panel("BLEU of validation", ("bleu",), "BLEU"),
    Panel("KL between R-Drop's passes (rdrop_kl)", ("rdrop_kl",), "bits per token"),
    Panel("Gradient norm (gnorm)", ("gnorm",), "norm", log_scale=True),
    Panel("Learning rate (lr)", ("lr",), "step size"),
    Panel(
        "Omega of the encoder: smallest and largest",
        ("encoder_omega_min", "encoder_omega_max"),
        "factor on the shortcut",
    ),
    Panel(
        "Omega of the decoder: smallest and largest",
        ("decoder_omega_min", "decoder_omega_max"),
        "factor on the shortcut",
    ),
    Panel("Loss scale (loss_scale)", ("loss_scale",), "factor", log_scale=True),
    Panel("Speed (wps)", ("wps",), "target tokens per second"),
)


def colours(count: int) -> list[str]:
    """A colour per run, apart from each other and readable on light and dark ground."""
    # Steps of the golden ratio: neighbours in the list are far apart whatever the count.
    hues = [(0.58 + 0.618034 * index) % 1 for index in range(count)]
    found = []
    for hue in hues:
        red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.52, 0.65))
        found.append(f"#{red:02x}{green:02x}{blue:02x}")
    return found


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """A curve of at most about `most` points that keeps the smallest and largest value of each
    stretch, so that no peak is lost, and the first and last point."""
    count = len(curve.updates)
    if count <= most:
        return curve
    kept = {0, count - 1}
    stretch = -(-2 * count // most)
    for start in range(0, count, stretch):
        places = range(start, min(start + stretch, count))
        kept |= {
            min(places, key=curve.values.__getitem__),
            max(places, key=curve.values.__getitem__),
        }
    places_kept = sorted(kept)
    return Curve([curve.updates[i] for i in places_kept], [curve.values[i] for i in places_kept])


def curves_of(run: Run, name: str) -> dict[str, Curve]:
    """Title -> the run's curves of one quantity: `training` within epochs, of whole epochs where the
    log has nothing else, and one for each validation subset."""
    found = {}
    for candidate in (name, f"train_{name}"):
        if candidate in run.curves:
            found["training"] = run.curves[candidate]
            break
    for subset in run.subsets if name != "wps" else ():
        if f"{subset}_{name}" in run.curves:
            found[subset] = run.curves[f"{subset}_{name}"]
    return found


def curve_figure(panel: Panel, runs: Sequence[Run]) -> dict[str, Any] | None:
    """A panel of all runs, None if none has the quantity.

    Training is drawn solid, validation dashed. Each trace has its run's number as `meta` and minutes
    of training as `customdata`, which the page puts on the x axis on demand.
    """
    import plotly.graph_objects as go

    figure = go.Figure(layout={"template": "none", "showlegend": False, "hovermode": "closest"})
    for number, (run, colour) in enumerate(zip(runs, colours(len(runs)), strict=True)):
        for name in panel.names:
            for title, full in curves_of(run, name).items():
                curve = thinned(full)
                label = " ".join([run.label, title, *([name] if len(panel.names) > 1 else [])])
                minutes = minutes_at(run.curves, curve.updates)
                time = "" if minutes is None else ", minute %{customdata:.1f}"
                figure.add_scatter(
                    x=curve.updates,
                    y=curve.values,
                    customdata=minutes,
                    meta=number,
                    name=label,
                    mode="lines" if len(curve.updates) > 1 else "markers",
                    line={
                        "color": colour,
                        "width": 1.6,
                        "dash": "solid" if title == "training" else "dash",
                    },
                    hovertemplate=f"%{{y:.5g}}{time}<extra>%{{fullData.name}}</extra>",
                )
    if not figure.data:
        return None
    figure.update_layout(
        margin={"l": 56, "r": 12, "t": 8, "b": 44},
        # Few ticks: between powers of ten every digit would get one, on top of each other.
        yaxis={"title": {"text": panel.unit}}
        | ({"type": "log", "nticks": 6} if panel.log_scale else {}),
        xaxis={"title": {"text": "updates"}},
    )
    return figure.to_plotly_json()


def omega_figure(stack: str, runs: Sequence[Run]) -> dict[str, Any] | None:
    """Mean omega of every sublayer of a stack, dotted at the earliest checkpoint and solid at the
    latest; None if no run has any."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={"template": "none", "showlegend": False, "hovermode": "closest"})
    for number, (run, colour) in enumerate(zip(runs, colours(len(runs)), strict=True)):
        for profile in run.omegas:
            if stack not in profile.means:
                continue
            is_last = profile is run.omegas[-1]
            when = "" if profile.update is None else f" update {profile.update}"
            figure.add_scatter(
                x=list(range(1, len(profile.means[stack]) + 1)),
                y=profile.means[stack],
                text=profile.names[stack],
                meta=number,
                name=f"{run.label}{when}",
                mode="lines+markers",
                marker={"size": 4},
                line={"color": colour, "width": 1.6, "dash": "solid" if is_last else "dot"},
                hovertemplate="%{text}: %{y:.4g}<extra>%{fullData.name}</extra>",
            )
    if not figure.data:
        return None
    figure.update_layout(
        margin={"l": 56, "r": 12, "t": 8, "b": 44},
        yaxis={"title": {"text": "mean omega"}},
        xaxis={"title": {"text": "sublayer with an omega, in forward order"}},
    )
    return figure.to_plotly_json()


def head_figure(found: HeadMap) -> dict[str, Any]:
    """A heat map for each kind of attention, layers downwards."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    kinds = kinds_of([found])
    figure = make_subplots(cols=len(kinds), subplot_titles=[KINDS[kind] for kind in kinds])
    largest = max(
        (value for layers in found.values.values() for layer in layers for value in layer),
        default=1.0,
    )
    for column, kind in enumerate(kinds, 1):
        layers = found.values[kind]
        width = max(map(len, layers), default=0) or 1
        rows = [[*layer, *[None] * (width - len(layer))] for layer in layers]
        scale = [[0, "#8a949e33"], [1, "#2f7dd1"]] if found.is_kept else "Viridis"
        figure.add_trace(
            go.Heatmap(
                z=rows, x=list(range(1, width + 1)), y=list(range(1, len(rows) + 1)),
                zmin=0, zmax=1 if found.is_kept else largest, xgap=2, ygap=2,
                colorscale=scale, showscale=not found.is_kept and column == len(kinds),
                hovertemplate=f"{kind}:%{{y}}:%{{x}} %{{z:.3g}}<extra></extra>",
            ),
            row=1, col=column,
        )  # fmt: skip
        # Whole numbers only, at most twelve of them.
        figure.update_xaxes(tick0=1, dtick=-(-width // 12), col=column)
        figure.update_yaxes(tick0=1, dtick=-(-len(rows) // 12) or 1, col=column)
    figure.update_layout(template="none", margin={"l": 36, "r": 12, "t": 28, "b": 40})
    figure.update_annotations(font={"size": 11})
    figure.update_xaxes(title={"text": "head"}, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(title={"text": "layer"}, col=1)
    return figure.to_plotly_json()
