"""ReZero (arXiv 2003.04887): `x_i = x_{i-1} + alpha_i f_i(x_{i-1})`, alpha_i = 0 at the start.

No LayerNorm; every alpha_i is one trained number. At the start the stack is the identity.
"""

from admin_nmt.initialization.scheme import Scheme, Stack
from admin_nmt.modules.residual import Residual, ReZeroResidual


class ReZeroScheme(Scheme):
    """A trained number on every branch, and no LayerNorm."""

    layer_norm = False
    folds = "has no LayerNorm, which every sublayer of a plain Transformer has"

    def residual(self, stack: Stack, position: int, embed_dim: int) -> Residual:
        """One alpha, 0 at the start."""
        return ReZeroResidual()
