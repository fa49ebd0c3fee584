"""Plots are whole or absent, in the format of their ending."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from admin_nmt.analysis.plots import plot_panels, save_figure
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
