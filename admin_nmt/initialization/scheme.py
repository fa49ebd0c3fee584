"""The interface of a residual scheme: its residual connections, LayerNorms and gains of initial weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from admin_nmt.modules.residual import Residual

Stack = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class Depth:
    """Sizes of the two stacks.

    Attributes:
        encoder_layers: N.
        decoder_layers: M.
        decoder_sublayers: residual sublayers of one decoder layer, 3, or 2 without
            encoder-decoder attention.
    """

    encoder_layers: int
    decoder_layers: int
    decoder_sublayers: int = 3

    def num_residuals(self, stack: Stack) -> int:
        """n, the number of residual sublayers of a stack: 2N or 3M.

        Examples:
            >>> Depth(encoder_layers=60, decoder_layers=12).num_residuals("encoder")
            120
        """
        if stack == "encoder":
            return 2 * self.encoder_layers
        return self.decoder_sublayers * self.decoder_layers


class Scheme:
    """Plain post-LN (or pre-LN) with the initial values of fairseq; base of the other schemes.

    Args:
        depth: of both stacks.
        trainable: whether vectors omega are parameters (they are buffers otherwise).
    """

    #: Whether layers have LayerNorms.
    layer_norm = True
    #: Whether the scheme is defined for pre-LN models.
    supports_pre_norm = False
    #: Whether omega is measured at the start of training.
    needs_profile = False
    #: True if a model with it can become a plain Transformer, else why it cannot.
    folds: bool | str = True

    def __init__(self, depth: Depth, trainable: bool = True) -> None:
        self.depth = depth
        self.trainable = trainable

    def residual(self, stack: Stack, position: int, embed_dim: int) -> Residual:
        """The connection of sublayer `position` (from 0, in forward order) of a stack."""
        raise NotImplementedError

    def initialize(self, stack: Stack, layers: Sequence[nn.Module]) -> None:
        """Change initial weights of a built stack; nothing by default."""


class DefaultScheme(Scheme):
    """Vaswani et al. (2017): `x + f(x)`, post-LN, or pre-LN with `--encoder-normalize-before`."""

    supports_pre_norm = True

    def residual(self, stack: Stack, position: int, embed_dim: int) -> Residual:
        """Always the plain sum."""
        return Residual()
