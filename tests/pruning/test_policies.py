"""Policies remove exactly what they promise, from the least important head on."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.errors import UsageError
from admin_nmt.modules.head_names import (
    Head,
    LayerHeads,
    all_heads,
    format_layout,
    parse_heads,
    parse_layout,
    require_heads,
    without,
)
from admin_nmt.pruning.policies import (
    choose,
    choose_uniform,
    global_budget,
    kind_budgets,
    num_to_remove,
    random_order,
    require_min_heads,
    require_uniform,
)

LAYOUTS = st.fixed_dictionaries(
    {kind: st.lists(st.integers(0, 6), min_size=1, max_size=5).map(tuple) for kind in "EAD"}
)
FRACTIONS = st.floats(0, 1)


def test_the_count_is_that_of_the_official_code_without_its_rounding() -> None:
    for total in range(0, 200):
        for tenth in range(0, 11):
            exact = -(-total * tenth // 10)  # ceil in integers
            assert num_to_remove(tenth / 10, total) == exact


@given(LAYOUTS, FRACTIONS, st.integers(0, 3), st.booleans(), st.integers(1, 99))
def test_budgets_and_the_minimum_are_met_exactly(layout, fraction, min_heads, protect, seed):
    order = random_order(layout, seed)
    (budget,) = global_budget(layout, fraction, protect)
    assert budget.count == num_to_remove(fraction, len(order))
    candidates = [head for head in order if not (protect and head.kind == "A")]
    free = {
        (kind, layer): max(0, count - min_heads)
        for kind, counts in layout.items()
        if kind in budget.kinds
        for layer, count in enumerate(counts, 1)
    }
    if sum(free.values()) < budget.count:
        with pytest.raises(UsageError, match=r"--fraction .* heads cannot be removed; with --min"):
            choose(order, layout, [budget], min_heads)
        return
    removed = choose(order, layout, [budget], min_heads)
    assert len(removed) == budget.count
    # Greedy: a head that stays although an earlier-ranked layer mate... stays for a full layer only.
    for position, head in enumerate(candidates):
        if head not in removed:
            later = [h for h in candidates[position + 1 :] if h in removed]
            taken = sum(h[:2] == head[:2] for h in removed)
            assert not later or taken == free[head.kind, head.layer]


@given(LAYOUTS, FRACTIONS, FRACTIONS, st.integers(1, 99))
def test_budgets_by_kind_are_independent(layout, encoder_self, cross, seed):
    order = random_order(layout, seed)
    removed = choose(order, layout, kind_budgets(layout, {"E": encoder_self, "A": cross}))
    by_kind = {kind: [h for h in order if h.kind == kind and h in removed] for kind in "EAD"}
    for kind, fraction in (("E", encoder_self), ("A", cross), ("D", 0.0)):
        heads = [head for head in order if head.kind == kind]
        assert by_kind[kind] == heads[: num_to_remove(fraction, len(heads))]


@given(LAYOUTS, FRACTIONS, st.integers(1, 99))
def test_uniform_leaves_equal_layers_and_takes_the_least_important(layout, fraction, seed):
    order = random_order(layout, seed)
    removed = choose_uniform(order, layout, {"E": fraction, "D": fraction})
    after = without(layout, removed)
    assert after["A"] == layout["A"]
    for kind in "ED":
        assert len(set(after[kind])) == 1
        largest = max(layout[kind])
        assert after[kind][0] == min(
            largest - math.ceil(round(fraction * largest, 9)), *layout[kind]
        )
        for layer in range(1, len(layout[kind]) + 1):
            mates = [head in removed for head in order if head[:2] == (kind, layer)]
            assert mates == sorted(mates, reverse=True)


def test_random_order_depends_on_the_seed_alone():
    layout = {"E": (4, 4), "A": (4,), "D": (4,)}
    assert random_order(layout, 1) == random_order(layout, 1) != random_order(layout, 2)
    assert sorted(random_order(layout, 1)) == sorted(all_heads(layout))


@given(LAYOUTS)
def test_layouts_and_names_are_read_as_they_are_written(layout):
    parsed = parse_layout(format_layout(layout))
    assert format_layout(parsed) == format_layout(layout)
    assert {k: tuple(x.scores for x in parsed[k]) for k in parsed} == layout
    heads = list(all_heads(layout))
    require_heads(heads, layout)
    if heads:
        assert parse_heads(",".join(map(str, heads))) == heads


def test_heads_without_values_are_read_as_they_are_written():
    text = "E:4(1.3.4),4,2(),0 D:3(2)"
    layout = parse_layout(text)
    assert format_layout(layout) == text
    assert layout["E"][0] == LayerHeads(4, (0, 2, 3)) and layout["E"][2] == LayerHeads(2, ())


def test_bare_numbers_go_on_in_the_same_layer():
    expected = [Head("E", 3, 1), Head("E", 3, 4), Head("A", 1, 2)]
    assert parse_heads("E:3:1,4,A:1:2") == parse_heads("E:3:1 E:3:4, A:1:2") == expected


LAYOUT = {"E": (4, 4), "A": (4, 4), "D": (4, 4)}


def test_small_layers_and_kinds_that_were_not_asked_for_may_differ():
    """A layer that had fewer heads than the minimum keeps them; other kinds need not be uniform."""
    require_min_heads(parse_heads("E:2:1,2"), LAYOUT | {"E": (1, 4)}, 2)
    removed = parse_heads("E:2:1")
    require_uniform(removed, LAYOUT, "AD", "the mask")
    with pytest.raises(UsageError, match=r"the mask leaves 4, 3 heads in the layers of encoder"):
        require_uniform(removed, LAYOUT, "EA", "the mask")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_heads("F:1:2"), r"--heads: 'F:1:2' is not a head; write KIND:LAYER:HEAD"),
        (lambda: parse_heads("3"), r"--heads: '3' is not a head"),
        (lambda: parse_heads(""), r"--heads: '' is not a head"),
        (lambda: parse_heads("E:1:2,2"), r"--heads: head E:1:2 is named twice"),
        (lambda: global_budget(LAYOUT, 1.5), r"--fraction 1.5: give a fraction of heads between"),
        (lambda: kind_budgets(LAYOUT, {"A": -0.1}), r"--cross -0.1: give a fraction"),
        (lambda: kind_budgets(LAYOUT, {"E": float("nan")}), r"--encoder-self nan: give a fraction"),
        (
            lambda: choose(random_order(LAYOUT, 1), LAYOUT, kind_budgets(LAYOUT, {"D": 1.0}), 1),
            r"--decoder-self 1: 8 heads cannot be removed; with --min-heads 1 at most 6 can",
        ),
        (lambda: choose([], LAYOUT, [], -1), r"--min-heads -1: give a number of at least 0"),
        (
            lambda: choose_uniform([], LAYOUT, {"E": 0.5}, -1),
            r"--min-heads -1: give a number of at least 0",
        ),
        (
            lambda: choose_uniform(random_order(LAYOUT, 1), LAYOUT, {"E": 0.9}, 1),
            r"--uniform with --encoder-self 0.9 leaves 0 heads in a layer of encoder self-attention; "
            r"--min-heads 1 forbids",
        ),
        (
            lambda: choose_uniform(
                [head for head in all_heads(LAYOUT) if head not in parse_heads("A:2:1,2")],
                LAYOUT,
                {"A": 0.6},
            ),
            r"--uniform with --cross 0.6 leaves 1 heads in each layer of encoder-decoder attention, "
            r"but 2 of layer 2 have to stay.*; give a smaller fraction, or no --uniform",
        ),
        (
            lambda: require_min_heads(parse_heads("A:2:1,2,3"), LAYOUT, 2),
            r"--heads leaves 1 heads in layer 2 of encoder-decoder attention; --min-heads 2 forbid",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
