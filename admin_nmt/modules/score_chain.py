"""The layers of a stack with residual attention, which pass on their scores (arXiv 2012.11747).

There is one chain for each kind of attention of a stack: encoder self-attention, decoder
self-attention, encoder-decoder attention. A layer takes the scores of the layer below as arguments
and returns its own in a `LayerOutput`, so activation checkpointing sees both.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from admin_nmt.modules.attention_kinds import ATTENTION_KINDS


class LayerOutput(NamedTuple):
    """What an encoder or decoder layer computes.

    Attributes:
        x: (T, B, D), (S, B, D) in an encoder.
        attn: weights of encoder-decoder attention if they were asked for, (B, T, S) or (H, B, T, S).
        self_scores: raw scores of self-attention (B, H, T, T) if it is residual.
        cross_scores: those of encoder-decoder attention, (B, H, T, S).
    """

    x: Tensor
    attn: Tensor | None = None
    self_scores: Tensor | None = None
    cross_scores: Tensor | None = None

    def of_fairseq(self, stack: Literal["encoder", "decoder"]) -> Any:
        """What fairseq's stack expects of a layer: x, or x, the weights and its attention state, which
        serves ONNX export and is None here."""
        return self.x if stack == "encoder" else (self.x, self.attn, None)


class ScoreChain(nn.ModuleList):
    """The layers of a stack with residual attention.

    fairseq's encoder and decoder loop over their layers and pass one activation on. Iterating over
    this list yields, in place of each layer, a function that also passes the scores on. Every
    iteration is one forward pass with chains of its own, so two passes never mix. Layers are
    dropped as fairseq's `LayerDropModuleList` drops them, and the chain skips dropped ones: the
    mean counts layers that ran. Indexing gives the layers themselves.

    Args:
        layers: layers that take `layers_below` and the scores of the attentions of the stack
            (`AttentionKind.scores`, None in the first layer) and return a `LayerOutput`.
        stack: that they are of.
        p: probability with which a layer is dropped in training.
    """

    def __init__(
        self, layers: Sequence[nn.Module], stack: Literal["encoder", "decoder"], p: float = 0.0
    ) -> None:
        super().__init__(layers)
        self.stack: Literal["encoder", "decoder"] = stack
        self.p = p

    def __getitem__(self, index: Any) -> Any:
        # PyTorch's makes a slice with the constructor, which here needs more than layers.
        if isinstance(index, slice):
            return ScoreChain(list(super().__iter__())[index], self.stack, self.p)
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Any]:
        drop = self.training and self.p > 0
        draws = torch.empty(len(self)).uniform_().tolist() if drop else []
        carried: dict[str, Tensor | None] = {
            kind.scores: None for kind in ATTENTION_KINDS.values() if kind.stack == self.stack
        }
        below = itertools.count()
        for number, layer in enumerate(super().__iter__()):
            if not drop or draws[number] > self.p:
                yield partial(self._run, layer, carried, next(below))

    def __repr__(self) -> str:
        # PyTorch's iterates.
        return repr(nn.ModuleList(super().__iter__())).replace("ModuleList", "ScoreChain", 1)

    def _run(
        self,
        layer: nn.Module,
        carried: dict[str, Tensor | None],
        layers_below: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """What a plain layer would return; the scores in `carried` are replaced."""
        # Activation checkpointing makes a plain tuple of what the layer returns.
        output = LayerOutput(*layer(*args, **kwargs, **carried, layers_below=layers_below))
        carried.update({name: getattr(output, name) for name in carried})
        return output.of_fairseq(self.stack)
