"""Residual connection, dropout and LayerNorm in one operation."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from admin_nmt.ops.residual_norm import residual_norm

EPS = 1e-5


def rows_one_by_one(f: Tensor, x: Tensor, factor: Any, weight: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm(factor * x + f), one vector at a time."""
    result = torch.empty_like(f)
    for place in range(len(f)):
        r = factor * x[place] + f[place]
        mean = sum(r) / len(r)
        variance = sum((value - mean) ** 2 for value in r) / len(r)
        for column, value in enumerate(r):
            z = (value - mean) / (variance + EPS) ** 0.5
            result[place, column] = z * weight[column] + bias[column]
    return result


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 4), st.integers(2, 7), st.sampled_from(["omega", 1.0, 2.5]), st.integers(0, 99)
)
def test_is_the_formula(device: str, rows: int, dim: int, kind: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    f, x = torch.randn(2, rows, dim, generator=generator, dtype=torch.float64).to(device)
    omega, weight, bias = torch.randn(3, dim, generator=generator, dtype=torch.float64).to(device)
    factor = omega if kind == "omega" else kind
    expected = rows_one_by_one(f, x, factor, weight, bias)
    found = residual_norm(f, x, factor, weight, bias, EPS)
    torch.testing.assert_close(found, expected)


def test_gradients() -> None:
    torch.manual_seed(0)
    leaves = [torch.randn(shape, dtype=torch.float64) for shape in ((2, 3, 5), (2, 3, 5), 5, 5, 5)]
    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: residual_norm(*a, EPS), leaves)


def test_dropout_is_on_the_branch_alone(device: str) -> None:
    torch.manual_seed(0)
    weight, bias = torch.ones(400, device=device), torch.zeros(400, device=device)
    zeros = torch.zeros(50, 400, device=device)
    shortcut = torch.randn(50, 400).to(device)
    plain = residual_norm(zeros, shortcut, 1.0, weight, bias, EPS, 0.0)
    torch.testing.assert_close(plain, residual_norm(zeros, shortcut, 1.0, weight, bias, EPS, 0.3))
    # Of equal elements those that are kept are the larger ones of a row after the LayerNorm.
    norm = residual_norm(torch.ones_like(zeros), zeros, 1.0, weight, bias, EPS, 0.3)
    assert (norm < 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
