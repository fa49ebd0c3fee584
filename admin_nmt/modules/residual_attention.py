"""Attention that adds the scores of the layer below (RealFormer, arXiv 2012.11747).

`modules.score_chain` passes them from layer to layer.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from admin_nmt.errors import UsageError
from admin_nmt.modules.attention_kinds import ATTENTION_KINDS
from admin_nmt.modules.multihead_attention import (
    IncrementalState,
    MultiheadAttention,
    returned_weights,
)
from admin_nmt.ops.attention import attention_bias
from admin_nmt.ops.residual_attention import residual_attention, residual_attention_with_weights

#: The kinds of attention, as `--residual-attention` names them.
WORDS = tuple(kind.option for kind in ATTENTION_KINDS.values())


def residual_kinds(value: str | Sequence[str] | None) -> frozenset[str]:
    """The kinds of attention that a value of `--residual-attention` names.

    Args:
        value: `WORDS` separated by commas or spaces, or a list of them (YAML); `all`; `none` or
            None.

    Raises:
        UsageError: another word.
    """
    if value is not None and not isinstance(value, str | Sequence):
        raise UsageError(f"--residual-attention: give a list of words, not {value!r}")
    words = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else list(value or ())
    if words in (["all"], ["none"], [""], []):
        return frozenset(WORDS if words == ["all"] else ())
    for word in words:
        if word not in WORDS:
            raise UsageError(
                f"--residual-attention: {word!r} is unknown; give a list out of "
                f"{','.join(WORDS)}, or all, or none"
            )
    return frozenset(words)


class ResidualAttention(MultiheadAttention):
    """`MultiheadAttention` with the same parameters whose scores are added from layer to layer.

    The carried scores are the raw ones: padding and causal masks are applied after the addition and
    never accumulate. Incremental decoding needs no state for them: one step's scores go from layer
    to layer, over all keys that the cache holds, and beams may change places between steps.

    Args: those of `MultiheadAttention`, and
        mean: softmax over the scores divided by the number of layers so far (the undivided sum is
            carried); else over their sum.
        in_place: the scores of the layer below may be overwritten; not so under activation
            checkpointing, which keeps them for the second forward pass.
        value_heads: which of the `score_heads` (from 0) have values; None is all of them. The
            others only add to the scores. A layer may have fewer score heads than the layer below:
            it takes the first ones.
    """

    value_places: Tensor | None

    def __init__(
        self,
        *args: Any,
        mean: bool = True,
        in_place: bool = True,
        value_heads: tuple[int, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.mean = mean
        self.in_place = in_place
        self.value_heads = None if value_heads == tuple(range(self.score_heads)) else value_heads
        # On the device of the layer: a list of Python's would be copied there in every forward pass.
        places = None if self.value_heads is None else torch.tensor(self.value_heads).long()
        self.register_buffer("value_places", places, persistent=False)

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        incremental_state: IncrementalState | None = None,
        need_weights: bool = True,
        static_kv: bool = False,
        attn_mask: Tensor | None = None,
        need_head_weights: bool = False,
        prev_scores: Tensor | None = None,
        layers_below: int = 0,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Attend; arguments as in `MultiheadAttention.forward`, and

        Args:
            prev_scores: raw scores (B, H, T, S) of the layer below, None in the first layer.
            layers_below: how many layers they are the sum of.

        Returns:
            output and weights as `MultiheadAttention.forward`, and the raw scores (B, H, T, S),
            None from a layer without heads.
        """
        if self.score_heads == 0:
            out, none = super().forward(
                query, key, value, key_padding_mask, incremental_state, need_weights, static_kv,
                attn_mask, need_head_weights,
            )  # fmt: skip
            return out, none, None
        q, k, v, key_padding_mask = self._project(
            query, key, key_padding_mask, incremental_state, static_kv
        )
        bias = attention_bias(attn_mask, key_padding_mask, q.dtype)
        wanted = need_weights or need_head_weights
        if prev_scores is not None and prev_scores.shape[1] > self.score_heads:
            prev_scores = prev_scores[:, : self.score_heads].contiguous()
        attend: Callable = residual_attention_with_weights if wanted else residual_attention
        context, scores, *weights = attend(
            q, k, self._spread(v), prev_scores, bias,
            scale=self.scaling,
            layers=layers_below + 1 if self.mean else 1,
            dropout_p=self.dropout_module.active_p,
            # Autograd forbids writing into a view, and `prev_scores` is one where the layer below has
            # more heads or a module has a backward hook.
            in_place=self.in_place and prev_scores is not None and not prev_scores._is_view(),
        )  # fmt: skip
        of_heads = weights[0].transpose(0, 1) if wanted else None
        if self.value_places is not None:
            context = context.index_select(1, self.value_places)
            of_heads = self._of_values(of_heads)
        out = self._output(context) if self.num_heads else self.out_proj(query)
        return out, returned_weights(of_heads, need_head_weights), scores

    def _spread(self, v: Tensor) -> Tensor:
        """Values (B, H, S, K) in the places of their heads, zeros for heads that have none."""
        if self.value_places is None:
            return v
        spread = v.new_zeros((v.shape[0], self.score_heads, *v.shape[2:]))
        return spread.index_copy(1, self.value_places, v)

    def _of_values(self, weights: Tensor | None) -> Tensor | None:
        """Weights (H, B, T, S) of the heads that have values; one row of zeros if there are none."""
        if weights is None or self.num_heads == 0:
            return None if weights is None else torch.zeros_like(weights[:1])
        assert self.value_places is not None
        return weights.index_select(0, self.value_places)
