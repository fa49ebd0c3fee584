"""Curves of several checkpoints beside each other: none hides another."""

import pytest

from admin_nmt.pruning.reports import sweep_table
from admin_nmt.pruning.sweep import Point, PruningCurve, fractions, sweep_panels


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


@pytest.mark.parametrize(
    ("step", "labels"),
    [
        (0.025, ["0%", "2.5%", "5%", "7.5%", "10%"]),
        (0.1, ["0%", "10%"]),
        (1 / 30, ["0%", "3.33333%", "6.66667%", "10%"]),
    ],
)
def test_the_table_says_which_share_was_removed(step: float, labels: list[str]) -> None:
    points = tuple(Point(fraction, (), 1.0) for fraction in fractions(step, 0.1))
    table = sweep_table([PruningCurve("best.pt", "E", "importance", points)])
    assert [line.split()[0] for line in table.splitlines() if "%" in line] == labels


def test_sums_of_steps_are_not_shown_with_their_rounding() -> None:
    points = (Point(0.1 + 0.2, (), 1.0), Point(0.29, (), 1.0))
    table = sweep_table([PruningCurve("best.pt", "E", "importance", points)])
    assert [line.split()[0] for line in table.splitlines() if "%" in line] == ["30%", "29%"]
