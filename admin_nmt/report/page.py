"""The page itself: figures and tables through the template, plotly's program inside."""

import datetime
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from admin_nmt import __version__
from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write
from admin_nmt.report.figures import PANELS, colours, curve_figure, head_figure, omega_figure
from admin_nmt.report.runs import Run, compare_settings
from admin_nmt.report.translations import sample_sets, score_table

TEMPLATE = "page.html.jinja"


def require_libraries() -> None:
    """Say early which extra is missing.

    Raises:
        UserError: plotly or jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import plotly.graph_objects  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed, which the report needs: pip install admin_nmt[report]"
        ) from error


def embedded(content: Any) -> str:
    """JSON for a `<script>` element: no `<` that could end it, and null for what is not finite."""

    def finite(value: Any) -> Any:
        if isinstance(value, float) and not (value == value and abs(value) != float("inf")):
            return None
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return value

    return json.dumps(finite(content), ensure_ascii=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )


def render(runs: Sequence[Run], date: datetime.date) -> str:
    """The page as HTML that loads nothing.

    Raises:
        UserError: plotly or jinja2 is not installed.
    """
    require_libraries()
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    made = [(panel, curve_figure(panel, runs)) for panel in PANELS]
    curves = [(panel, figure) for panel, figure in made if figure is not None]
    omegas = [(stack, omega_figure(stack, runs)) for stack in ("encoder", "decoder")]
    omegas = [(stack, figure) for stack, figure in omegas if figure is not None]
    heads = [
        (f"{run.label}: {found.title}", head_figure(found)) for run in runs for found in run.heads
    ]
    evaluations = [(run.label, found) for run in runs for found in run.evaluations]
    different, common = compare_settings(runs)
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(files("admin_nmt.report").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        version=__version__,
        date=date.isoformat(),
        runs=list(zip(runs, colours(len(runs)), strict=True)),
        curve_titles=[panel.title for panel, _ in curves],
        has_minutes=any("wall" in run.curves or "train_wall" in run.curves for run in runs),
        different=different,
        common=common,
        omega_stacks=[stack for stack, _ in omegas],
        head_titles=[title for title, _ in heads],
        scores=score_table(evaluations),
        samples=sample_sets(evaluations),
        figures=Markup(embedded([figure for _, figure in (*curves, *omegas, *heads)])),
        plotly=Markup(get_plotlyjs()),
    )


def write_report(runs: Sequence[Run], path: str | os.PathLike[str]) -> None:
    """Render the page into a file, whole or not at all.

    Raises:
        UserError: a library is missing, or the file cannot be written.
    """
    page = render(runs, datetime.date.today())
    # Names of runs come from those of files, which need not be text.
    with atomic_write(path, errors="backslashreplace") as stream:
        stream.write(page)
