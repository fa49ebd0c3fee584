"""What is ablated, and the maps of the results."""

import math
import re
from types import SimpleNamespace
from typing import Any

import pytest

from admin_nmt.evaluation.significance import compare_systems
from admin_nmt.modules.head_names import Head
from admin_nmt.pruning.ablation import (
    Ablation,
    ablate,
    agreement,
    chosen_there,
    difference_maps,
    settings_of,
)
from admin_nmt.pruning.reports import comparison

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


def test_heads_chosen_on_another_set_are_shown_as_they_do_here() -> None:
    theirs = [
        row("all-but-one", "E:1:1", -1.0),
        row("all-but-one", "E:1:2", -0.5),
        row("one-head", "E:2:1", 9.0),  # another experiment
        row("all-but-one", "D:1:3", 0.25),
        row("all-but-one", "D:1:1", 0.25),  # the first of equals stays
        row("all-but-one", "A:1:1", 3.0),  # not measured here
    ]
    ours = [
        row("all-but-one", "E:1:1", 2.0),  # best here, and not chosen
        row("all-but-one", "E:1:2", -1.5),
        row("all-but-one", "D:1:3", -4.0),
    ]
    assert chosen_there(ours, theirs) == [
        ("E:1", "E:1:2", -0.5, -1.5),
        ("D:1", "D:1:3", 0.25, -4.0),
    ]
    text = comparison(ours, theirs, "other.json")
    assert re.search(r"D:1 +D:1:3 +\+0\.25 +-4\.00", text) and "Pearson" not in text
    assert (
        comparison(ours, [], "other.json") == "other.json has no head in common with these results"
    )


def test_agreement_is_pearsons_correlation_over_common_heads() -> None:
    ours = [row("one-head", f"E:1:{n}", value) for n, value in enumerate((1.0, 2.0, 4.0), 1)]
    theirs = [row("one-head", f"E:1:{n}", value) for n, value in enumerate((1.0, 3.0, 2.0, 7.0), 1)]
    # Deviations (-4/3, -1/3, 5/3) and (-1, 1, 0): covariance 1, variances 14/3 and 2.
    assert agreement(ours, theirs) == (3, pytest.approx(1 / math.sqrt(14 / 3 * 2)))
    count, r = agreement(ours[:1], theirs)
    assert count == 1 and math.isnan(r)


@pytest.mark.parametrize("lowercase", [False, True])
def test_rows_are_comparisons_with_the_whole_model(lowercase: bool) -> None:
    references = [f"one two three four five {number}" for number in range(20)]
    worse = [line.replace("three", "seven") if n % 3 else line for n, line in enumerate(references)]
    translations = {
        frozenset(): [line.replace("five", "six") if "1" in line else line for line in references],
        frozenset({Head("E", 1, 1)}): worse,
        frozenset({Head("E", 1, 2)}): [line.upper() for line in references],
    }
    translator: Any = SimpleNamespace(
        loaded=SimpleNamespace(layout={"E": (2,)}, path="model.pt"),
        test_set=SimpleNamespace(references=references, lowercase=lowercase, target="", bleu=len),
        is_done=lambda removed: True,
        translate=lambda removed: translations[frozenset(removed)],
    )
    numbers = {"num_bootstrap": 30, "num_randomisation": 40, "seed": 3}
    _, rows = ablate(translator, ("one-head",), **numbers)
    assert [row.head for row in rows] == ["E:1:1", "E:1:2"]
    whole, *masked = translations.values()
    for row, lines in zip(rows, masked, strict=True):
        result = compare_systems(
            {"whole": whole, "masked": lines}, references, metrics=["bleu"], lowercase=lowercase,
            **numbers,
        ).results[1]  # fmt: skip
        found = row.bleu, row.difference, row.p_bootstrap, row.p_randomisation
        assert found == (
            result.score, result.difference, result.p_bootstrap, result.p_randomisation
        )  # fmt: skip
    assert rows[0].p_bootstrap != rows[0].p_randomisation and (rows[1].bleu > 99) == lowercase


def test_rows_are_scored_with_the_tokeniser_of_the_target_language() -> None:
    references = ["我喜欢红色的花。", "我喜欢白色的花。"]
    translator: Any = SimpleNamespace(
        loaded=SimpleNamespace(layout={"E": (2,)}, path="model.pt"),
        test_set=SimpleNamespace(references=references, lowercase=False, target="zh", bleu=len),
        is_done=lambda removed: True,
        # Characters are the same, words between spaces are not.
        translate=lambda removed: [line.replace("红", " 红 ") for line in references],
    )
    _, rows = ablate(translator, ("one-head",), num_bootstrap=2, num_randomisation=2)
    assert [row.bleu for row in rows] == pytest.approx([100, 100])
