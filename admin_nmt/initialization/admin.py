"""ADMIN: adaptive model initialisation (arXiv 2004.08249, section 4; deep NMT: arXiv 2008.07772).

    x_i = LN(omega_i * x_{i-1} + f_i(x_{i-1}))

omega_i is a vector of size D on the shortcut, initialised to one value per sublayer so that the
variance of the sum keeps growing with depth while every branch adds its share:

    omega_1 = 1,   omega_{i+1}^2 = Var[omega_i * x_{i-1}] + Var[f_i(x_{i-1})]

| symbol  | here                                                                       |
|---------|----------------------------------------------------------------------------|
| x_{i-1} | `shortcut`, input of sublayer i; a LayerNorm output (variance 1) for i > 1 |
| f_i     | `branch`, output of sublayer i after its dropout                            |
| Var     | over all elements of one batch's activation, population, in float32         |
| i       | sublayers in forward order, encoder and decoder counted apart               |

Deviations from the paper, which are those of the authors' code: omega_1 is 1 (the paper's sum over
j < i would be 0), and omega_i is applied already during the profiling pass. Deviation from the
authors' code: omega_1 is not trained. Nothing before the first sublayer could absorb a vector, so
a trained omega_1 would make the folding into a plain Transformer inexact.
"""

import math

from admin_nmt.initialization.scheme import Scheme, Stack
from admin_nmt.modules.residual import Residual, ScaledResidual


def next_omega(shortcut_variance: float, branch_variance: float) -> float:
    """omega_{i+1} from Var[omega_i * x_{i-1}] and Var[f_i(x_{i-1})].

    Examples:
        >>> next_omega(2.0, 2.0)
        2.0
    """
    return math.sqrt(shortcut_variance + branch_variance)


class AdminScheme(Scheme):
    """Vectors omega, 1 until a profile sets them (`admin_nmt.initialization.profile`)."""

    needs_profile = True

    def residual(self, stack: Stack, position: int, embed_dim: int) -> Residual:
        """The plain sum for the first sublayer of a stack, a vector omega for the others."""
        if position == 0:
            return Residual()
        return ScaledResidual(embed_dim, 1.0, self.trainable)
