"""Residual connections against their formulas, gradients included."""

import torch
from torch.autograd import gradcheck

from admin_nmt.modules.residual import (
    ConstantResidual,
    Residual,
    ReZeroResidual,
    ScaledResidual,
)


def inputs(device: str) -> list[torch.Tensor]:
    """f and x, (3, 2, 5)."""
    torch.manual_seed(0)
    f, x = torch.randn(2, 3, 2, 5, dtype=torch.float64).to(device)
    return [f.requires_grad_(), x.requires_grad_()]


def test_every_kind_follows_its_formula(device: str) -> None:
    f, x = inputs(device)
    assert torch.equal(Residual()(f, x), x + f)
    torch.testing.assert_close(ConstantResidual(2.5)(f, x), 2.5 * x + f)
    scaled = ScaledResidual(5, 1.5).to(f)
    torch.testing.assert_close(scaled(f, x), 1.5 * x + f)
    omega = torch.tensor([1.0, -2.0, 0.0, 1e-3, 7.0]).to(f)
    scaled.set_omega(omega)
    torch.testing.assert_close(scaled(f, x), omega * x + f)
    rezero = ReZeroResidual().to(f)
    assert torch.equal(rezero(f, x), x)
    with torch.no_grad():
        rezero.alpha.fill_(0.3)
    torch.testing.assert_close(rezero(f, x), x + 0.3 * f)


def test_gradients_reach_branch_shortcut_and_factor(device: str) -> None:
    f, x = inputs(device)
    scaled, rezero = ScaledResidual(5, 1.5).to(f), ReZeroResidual().to(f)
    with torch.no_grad():
        rezero.alpha.fill_(-0.7)
    for module, factor in ((scaled, scaled.omega), (rezero, rezero.alpha)):
        assert gradcheck(lambda f, x, _, m=module: m(f, x), (f, x, factor))


def test_frozen_omega_is_a_buffer_in_the_state_dict() -> None:
    frozen = ScaledResidual(5, 1.5, trainable=False)
    assert list(frozen.parameters()) == []
    assert list(frozen.state_dict()) == ["omega"]
    assert list(dict(ScaledResidual(5).named_parameters())) == ["omega"]
