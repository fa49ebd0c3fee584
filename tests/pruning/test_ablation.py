"""What is ablated, and the maps of the results."""

import math

from admin_nmt.modules.head_names import Head
from admin_nmt.pruning.ablation import Ablation, difference_maps, settings_of

LAYOUT = {"E": (2, 1), "A": (1,), "D": (3,)}


def row(experiment: str, head: str, difference: float) -> Ablation:
    return Ablation(experiment, head, 30 + difference, difference, 0.5, 0.5)


def test_a_head_alone_in_its_layer_has_no_others_to_mask() -> None:
    found = settings_of(LAYOUT, ("one-head", "all-but-one"), "EA")
    assert found == [
        ("one-head", Head("E", 1, 1), {Head("E", 1, 1)}),
        ("one-head", Head("E", 1, 2), {Head("E", 1, 2)}),
        ("one-head", Head("E", 2, 1), {Head("E", 2, 1)}),
        ("one-head", Head("A", 1, 1), {Head("A", 1, 1)}),
        ("all-but-one", Head("E", 1, 1), {Head("E", 1, 2)}),
        ("all-but-one", Head("E", 1, 2), {Head("E", 1, 1)}),
    ]


def test_maps_hold_what_was_measured_by_layer_and_head() -> None:
    rows = [
        row("one-head", "E:1:1", -1.0),
        row("one-head", "E:1:2", 0.5),
        row("one-head", "E:2:1", -2.0),
        row("all-but-one", "E:1:2", -3.0),
    ]
    maps = difference_maps(rows, LAYOUT)
    assert list(maps) == ["without the head", "only this head"]
    assert maps["without the head"] == {"E": [[-1.0, 0.5], [-2.0]]}  # no rows, no kind
    ((missing, alone), (other,)) = maps["only this head"]["E"]
    assert alone == -3.0 and math.isnan(missing) and math.isnan(other)
