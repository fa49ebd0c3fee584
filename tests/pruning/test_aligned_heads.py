"""Heads that are trained to align words stay, and stay the first of their layer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from admin_nmt.errors import UsageError
from admin_nmt.models.heads import aligned_heads
from admin_nmt.modules.head_names import Head, without
from admin_nmt.pruning.choice import Choice, choose_heads

ALIGNED = ("--alignment-layer", "0", "--alignment-heads", "2", "--decoder-layers", "3")
REALFORMER = ("--residual-attention", "all")


@pytest.mark.parametrize("extra", [(), REALFORMER], ids=["plain", "realformer"])
def test_they_are_refused_by_name_and_passed_over_by_policies(
    loaded: Callable[..., Any], without_heads: Callable[..., Any], extra: tuple[str, ...]
) -> None:
    source = loaded(*ALIGNED, *extra)
    last = {Head("A", 3, 1), Head("A", 3, 2)} if extra else set()
    assert aligned_heads(source.model.cfg) == {Head("A", 1, 1), Head("A", 1, 2)} | last
    with pytest.raises(UsageError, match=r"head A:1:2 has to stay: .*\(--alignment-layer 0\)"):
        without_heads(source, {Head("A", 1, 2), Head("E", 1, 1)}, *ALIGNED, *extra)
    chosen = choose_heads(Choice(fractions={"A": 0.6}, random=True), source, lambda _: None)
    assert len(chosen) == 8 and not chosen & aligned_heads(source.model.cfg)
    with pytest.raises(UsageError, match="heads cannot be removed"):
        choose_heads(Choice(fractions={"A": 1.0}, random=True), source, lambda _: None)
    removed = choose_heads(
        Choice(fractions={"A": 0.5}, uniform=True, random=True), source, lambda _: None
    )
    assert without(source.layout, removed)["A"] == (2, 2, 2)
    with pytest.raises(UsageError, match="but 2 of layer 1 have to stay"):
        choose_heads(
            Choice(fractions={"A": 0.6}, uniform=True, random=True), source, lambda _: None
        )


def test_they_are_named_among_the_heads_that_have_values(build: Callable[..., Any]) -> None:
    """Of three layers the second place is the first head of the first and the second of the last."""
    layout = ("--heads-per-layer", "A:4(2.3),4,4", "--alignment-heads", "1")
    cfg = build(*ALIGNED, *REALFORMER, *layout).cfg
    assert aligned_heads(cfg) == {Head("A", 1, 1), Head("A", 3, 2)}


def test_they_stay_in_the_last_layer_that_has_them(build: Callable[..., Any]) -> None:
    """Else they would last shorter than others, and no longer be the first."""
    for layout, heads, last in (
        ("A:4,4,0", "1", {Head("A", 2, 1)}),
        ("A:4,4,1", "2", {Head("A", 3, 1), Head("A", 2, 2)}),
    ):
        options = ("--heads-per-layer", layout, "--alignment-heads", heads)
        cfg = build(*ALIGNED, *REALFORMER, *options).cfg
        first = {Head("A", 1, number + 1) for number in range(int(heads))}
        assert aligned_heads(cfg) == first | last


@pytest.mark.parametrize("extra", [(), REALFORMER], ids=["plain", "realformer"])
def test_alignment_is_the_same_after_other_heads_are_gone(
    loaded: Callable[..., Any], without_heads: Callable[..., Any], batch: Any,
    extra: tuple[str, ...],
) -> None:  # fmt: skip
    """As with those heads masked; with residual attention all others last as long as possible."""
    gone = {Head("A", 1, 3), Head("A", 2, 1), Head("A", 2, 2), Head("D", 1, 1)}
    masked = loaded(*ALIGNED, *extra, "--head-mask", ",".join(map(str, sorted(gone))))
    pruned = without_heads(loaded(*ALIGNED, *extra), gone, *ALIGNED, *extra)
    found = [model(**batch["net_input"])[1]["attn"][0] for model in (masked.model, pruned)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    assert aligned_heads(pruned.cfg) >= {Head("A", 1, 1), Head("A", 1, 2)}
