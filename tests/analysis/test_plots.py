"""Plots are whole or absent, in the format of their ending."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from admin_nmt.analysis.plots import (
    plot_curves,
    plot_distributions,
    plot_head_maps,
    plot_panels,
    save_figure,
)
from admin_nmt.analysis.training_log import Curve
from admin_nmt.errors import UserError

STARTS = {"a.png": b"\x89PNG", "a.pdf": b"%PDF", "a.svg": b"<?xml", "a": b"\x89PNG"}


@pytest.mark.parametrize("name", STARTS)
def test_the_ending_chooses_the_format(name: str, tmp_path: Path) -> None:
    save_figure(Figure(), tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(STARTS[name])


def test_failures_are_one_line_and_leave_the_old_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match=r"cannot write plot .*a\.txt: Format 'txt' is not supported"
    ):
        save_figure(Figure(), tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    whole = Figure.savefig

    def interrupted(*args: Any, **kwargs: Any) -> None:
        whole(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plot_panels({"x": {"y": ([1.0], [2.0])}}, path, xlabel="", ylabel="")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["runs/$a_$b", "a$$/c", "a$x_1$/c.pt", "p\udce9/c.pt"])
def test_names_are_text_whatever_they_are(name: str, tmp_path: Path) -> None:
    """matplotlib takes what stands between dollar signs for a formula."""
    plot_head_maps({name: {"E": [[1.0, 2.0]]}}, tmp_path / "a.png", label="x")
    plot_panels({name: {name: ([1.0], [2.0])}}, tmp_path / "b.png", xlabel="x", ylabel="y")
    plot_distributions({name: {1: [[1.0, 2.0]]}}, tmp_path / "c.png", ylabel="y", title="t")
    plot_curves({name: Curve([1], [2.0])}, tmp_path / "d.png", ylabel="y")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", "c.png", "d.png"}
