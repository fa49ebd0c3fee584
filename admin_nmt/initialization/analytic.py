"""ADMIN without profiling: the same omega for all sublayers of a stack, from its depth alone.

As in admin-torch 0.1.0 (the ADMIN authors' later package), for n residual sublayers in the stack:

    admin-log:    omega = sqrt((n + 1) / ln(n + 1) - 1)    output change O(log n)
    admin-const:  omega = sqrt(n)                          output change O(1)

The first sublayer keeps its factor as a constant number: a constant folds into a plain Transformer
(`LN(c x + f) = LN(x + f / c)` up to LayerNorm's epsilon), a trained vector would not.
"""

import math

from admin_nmt.initialization.scheme import Depth, Scheme, Stack
from admin_nmt.modules.residual import ConstantResidual, Residual, ScaledResidual


def omega_log(num_residuals: int) -> float:
    """`sqrt((n + 1) / ln(n + 1) - 1)` for n >= 1 residual sublayers; never below 0.

    Examples:
        >>> round(omega_log(12), 3)
        2.017
    """
    return math.sqrt((num_residuals + 1) / math.log(num_residuals + 1) - 1)


def omega_const(num_residuals: int) -> float:
    """`sqrt(n)` for n residual sublayers.

    Examples:
        >>> omega_const(144)
        12.0
    """
    return math.sqrt(num_residuals)


class AnalyticScheme(Scheme):
    """One initial omega per stack, given by a function of the number of residual sublayers."""

    def __init__(self, depth: Depth, trainable: bool = True, *, logarithmic: bool) -> None:
        super().__init__(depth, trainable)
        self.omega = omega_log if logarithmic else omega_const

    def residual(self, stack: Stack, position: int, embed_dim: int) -> Residual:
        """A constant for the first sublayer of a stack, a vector omega for the others."""
        omega = self.omega(self.depth.num_residuals(stack))
        if position == 0:
            return ConstantResidual(omega)
        return ScaledResidual(embed_dim, omega, self.trainable)
