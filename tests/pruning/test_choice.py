"""Which heads go: options that exclude each other, masked heads, and what need not be measured."""

from collections.abc import Callable
from typing import Any

import pytest

from admin_nmt.errors import UsageError
from admin_nmt.modules.head_names import parse_heads
from admin_nmt.pruning.choice import Choice, choose_heads
from admin_nmt.pruning.records import Measurement


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"say which heads: --fraction, --encoder-self .*, or --heads"),
        ({"fractions": {"E": 0.5}, "heads": "E:1:1"}, r"--encoder-self and --heads exclude"),
        ({"fraction": 0.1, "fractions": {"A": 0.5}}, r"--fraction and --cross exclude"),
        ({"fractions": {"D": 0.5}, "protect_cross": True}, r"--protect-cross needs --fraction"),
        ({"fraction": 0.1, "random": True, "importance": "x"}, r"--importance and --random excl"),
        ({"heads": "E:1:1", "uniform": True}, r"--heads and --uniform exclude each other"),
    ],
)
def test_options_that_exclude_each_other_are_named(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Choice(**options)


def scores(loaded: Any) -> Measurement:
    """Heads matter in the order in which they are numbered."""
    found = {
        kind: [[float(head) for head in range(1, count + 1)] for count in counts]
        for kind, counts in loaded.layout.items()
    }
    return Measurement(loaded.path, loaded.fingerprint, loaded.layout, found)


def unwanted(loaded: Any) -> Measurement:
    raise AssertionError("nothing had to be measured")


def test_masked_heads_go_first_and_with_every_choice(loaded: Callable[..., Any]) -> None:
    model = loaded("--head-mask", "E:1:4,D:2:3")
    masked = set(parse_heads("E:1:4,D:2:3"))
    assert choose_heads(Choice(fraction=0.08), model, scores) == masked
    assert choose_heads(Choice(heads="A:1:2"), model, unwanted) == masked | {*parse_heads("A:1:2")}
    # A quarter of eight: the masked one, and the first of the two that matter least.
    chosen = choose_heads(Choice(fractions={"E": 0.25}), model, scores)
    assert chosen == masked | {*parse_heads("E:1:1")}


def test_nothing_is_measured_that_need_not_be(loaded: Callable[..., Any]) -> None:
    model = loaded()
    random = [
        choose_heads(Choice(fraction=0.5, random=True, seed=n), model, unwanted) for n in (1, 1, 2)
    ]
    assert random[0] == random[1] != random[2] and len(random[0]) == 12
    with pytest.raises(UsageError, match=r"--min-heads 3 at most 6"):
        choose_heads(Choice(fraction=0.5, min_heads=3), model, unwanted)
    with pytest.raises(
        UsageError, match=r"--uniform with --fraction 0.9 leaves 0 heads in a layer"
    ):
        choose_heads(Choice(fraction=0.9, uniform=True, min_heads=1), model, unwanted)
