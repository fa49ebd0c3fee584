"""The share of an encoder's output that differs by position."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_nmt.analysis.collapse import PositionShare


def naive(sentences: list[torch.Tensor]) -> float:
    """Sentence by sentence, (S_i, D) each, without padding."""
    within = total = 0.0
    for positions in sentences:
        positions = positions.double()
        within += (positions - positions.mean(0)).square().mean().item()
        total += positions.square().mean().item()
    return within / total


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    dim=st.integers(1, 6),
    seed=st.integers(0, 999),
)
def test_padding_does_not_count(lengths: list[int], dim: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sentences = [torch.randn(length, dim, generator=generator) + 0.5 for length in lengths]
    states = torch.full((max(lengths), len(lengths), dim), 1e3)  # (S, B, D)
    mask = torch.ones(len(lengths), max(lengths), dtype=torch.bool)
    for index, sentence in enumerate(sentences):
        states[: len(sentence), index] = sentence
        mask[index, : len(sentence)] = False
    share = PositionShare()
    share.add(states, mask if mask.any() else None)
    assert share.value == pytest.approx(naive(sentences), rel=1e-9, abs=1e-12)


def test_batches_add_up() -> None:
    first, second = torch.randn(4, 2, 3), torch.randn(5, 1, 3)
    share = PositionShare()
    assert math.isnan(share.value)
    share.add(first, None)
    share.add(second, None)
    expected = naive([first[:, 0], first[:, 1], second[:, 0]])
    assert share.value == pytest.approx(expected, rel=1e-6)


def test_limits() -> None:
    alike, opposite = PositionShare(), PositionShare()
    alike.add(torch.randn(1, 3, 4).expand(6, 3, 4), None)
    x = torch.randn(1, 3, 4)
    opposite.add(torch.cat([x, -x]), None)
    assert alike.value == pytest.approx(0, abs=1e-12)
    assert opposite.value == pytest.approx(1)


def test_an_encoder_is_watched_only_inside(build: Callable[..., Any], batch: Any) -> None:
    model = build().eval()
    share = PositionShare()
    encode = {key: batch["net_input"][key] for key in ("src_tokens", "src_lengths")}
    with torch.no_grad(), share.watching(model.encoder):
        output = model.encoder(**encode)
    expected = PositionShare()
    expected.add(output["encoder_out"][0], output["encoder_padding_mask"][0])
    assert share.value == expected.value and 0 < share.value < 1
    model.encoder(**encode)
    assert share.value == expected.value
