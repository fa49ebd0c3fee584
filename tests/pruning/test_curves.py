"""Curves of several checkpoints beside each other: none hides another."""

import pytest

from admin_nmt.pruning.reports import sweep_table
from admin_nmt.pruning.sweep import Point, PruningCurve, sweep_panels


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["run/checkpoint_best.pt"], ["importance"]),
        (["run/checkpoint10.pt", "run/checkpoint20.pt"], ["checkpoint10", "checkpoint20"]),
        (["a/checkpoint_best.pt", "b/checkpoint_best.pt"], ["a/checkpoint_best.pt", "b/check"]),
    ],
)
def test_every_checkpoint_has_its_curve_and_its_name(paths: list[str], names: list[str]) -> None:
    curves = [
        PruningCurve(path, "E", "importance", (Point(0.0, (), 10.0 + number),))
        for number, path in enumerate(paths)
    ]
    lines = sweep_panels(curves)["encoder self"]
    assert [bleu for _, bleu in lines.values()] == [[10.0 + n] for n in range(len(paths))]
    assert all(name in label for name, label in zip(names, lines, strict=True))
    assert all(name in sweep_table(curves) for name in names)
