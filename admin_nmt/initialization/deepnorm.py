"""DeepNorm (DeepNet, arXiv 2203.00555, section 3 and figure 2).

    x_i = LN(alpha * x_{i-1} + f_i(x_{i-1}))

with one constant alpha per stack and a Xavier gain beta on the FFN, value and output projections
(queries and keys keep gain 1). For N encoder and M decoder layers:

    encoder: alpha = 0.81 (N^4 M)^(1/16),  beta = 0.87 (N^4 M)^(-1/16)
    decoder: alpha = (3 M)^(1/4),          beta = (12 M)^(-1/4)
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from admin_nmt.initialization.scheme import Depth, Scheme, Stack
from admin_nmt.modules.residual import ConstantResidual, Residual


def alpha_beta(stack: Stack, depth: Depth) -> tuple[float, float]:
    """alpha and beta of a stack (table in figure 2 of the paper, encoder-decoder row).

    Examples:
        >>> alpha, beta = alpha_beta("decoder", Depth(encoder_layers=6, decoder_layers=27))
        >>> round(alpha, 6), round(beta, 3)
        (3.0, 0.236)
    """
    n, m = depth.encoder_layers, depth.decoder_layers
    if stack == "encoder":
        return 0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16)
    return (3 * m) ** 0.25, (12 * m) ** -0.25


class DeepNormScheme(Scheme):
    """Constant alpha on every shortcut, initial weights scaled by beta."""

    def residual(self, stack: Stack, position: int, embed_dim: int) -> Residual:
        """The constant alpha of the stack."""
        return ConstantResidual(alpha_beta(stack, self.depth)[0])

    def initialize(self, stack: Stack, layers: Sequence[nn.Module]) -> None:
        """Xavier-normal weights with gain beta for fc1, fc2, v and output, 1 for q and k."""
        _, beta = alpha_beta(stack, self.depth)
        layer: Any
        for layer in layers:
            for linear in (layer.fc1, layer.fc2):
                nn.init.xavier_normal_(linear.weight, gain=beta)
            for attention in (layer.self_attn, getattr(layer, "encoder_attn", None)):
                if attention is None:
                    continue
                for name, (weight, _) in attention.projections().items():
                    # A view into a fused matrix: its own shape gives Xavier its fan-in and fan-out.
                    nn.init.xavier_normal_(weight.detach(), gain=beta if name == "v" else 1.0)
                if attention.num_heads:
                    nn.init.xavier_normal_(attention.out_proj.weight, gain=beta)
