"""Residual connections as modules: one per sublayer, passed to the layer when it is built.

The layer calls `residual(branch, shortcut)` and does not know which method is used. `branch` is
f_i(x_{i-1}) after its dropout, `shortcut` is x_{i-1}; both (T, B, D), as is the result.
"""

import torch
from torch import Tensor, nn

#: Names of a layer's connections, in the order in which it runs them; an encoder has no second one.
RESIDUALS = ("self_attn_residual", "encoder_attn_residual", "ffn_residual")


class Residual(nn.Module):
    """`x + f(x)`, the connection of Vaswani et al. (2017)."""

    #: Factor on the shortcut when it is one constant number; None when it is a tensor or on f.
    constant: float | None = 1.0

    @property
    def factor(self) -> float | Tensor | None:
        """Factor on the shortcut, a number or a (D,) tensor; None where there is one on f."""
        return self.constant

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Add `branch` and `shortcut`."""
        return shortcut + branch


class ConstantResidual(Residual):
    """`c * x + f(x)` with one fixed number c: DeepNorm (arXiv 2203.00555, eq. 2), and the first
    connection of a stack under analytic ADMIN (a constant can be folded there, a vector cannot)."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Add `branch` and `c * shortcut`."""
        assert self.constant is not None
        return torch.add(branch, shortcut, alpha=self.constant)

    def extra_repr(self) -> str:
        return f"constant={self.constant:.6g}"


class ScaledResidual(Residual):
    """`omega * x + f(x)` with a vector omega: ADMIN (arXiv 2004.08249, section 4; 2008.07772, eq. 2).

    Args:
        embed_dim: D, the size of omega.
        value: every component of omega before profiling.
        trainable: omega is a parameter, else a buffer; both are in the state dict as `omega`.
    """

    constant = None
    omega: Tensor

    def __init__(self, embed_dim: int, value: float = 1.0, trainable: bool = True) -> None:
        super().__init__()
        omega = torch.full((embed_dim,), value)
        if trainable:
            self.omega = nn.Parameter(omega)
        else:
            self.register_buffer("omega", omega)

    @property
    def factor(self) -> Tensor:
        """omega."""
        return self.omega

    def set_omega(self, value: float | Tensor) -> None:
        """Fill omega in place with one number or a (D,) tensor."""
        with torch.no_grad():
            self.omega.copy_(torch.as_tensor(value).to(self.omega))

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Add `branch` and `omega * shortcut`."""
        return torch.addcmul(branch, shortcut, self.omega)

    def extra_repr(self) -> str:
        kind = "parameter" if isinstance(self.omega, nn.Parameter) else "buffer"
        return f"{self.omega.numel()}, {kind}"


class ReZeroResidual(Residual):
    """`x + alpha * f(x)` with one trained number alpha, 0 at the start (ReZero, arXiv 2003.04887)."""

    constant = None

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Add `alpha * branch` and `shortcut`."""
        return torch.addcmul(shortcut, branch, self.alpha)
