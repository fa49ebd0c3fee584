"""Encoder and decoder layers that get their residual connections as arguments.

They are fairseq's layers with our attention, our dropout and one residual connection for each sublayer
(`admin_nmt.modules.residual`) in place of fairseq's method `residual_connection`, which is the same for
all sublayers. Sublayers count in forward order: encoder self-attention, FFN; decoder self-attention,
encoder-decoder attention, FFN. Tensors are time-first, (T, B, D).

Each layer comes in two classes. The plain one returns what fairseq's encoder or decoder expects of a
layer. The one for residual attention (`--residual-attention`) also takes the attention scores of the layer
below and returns its own; a `ScoreChain` passes them from layer to layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.modules.transformer_layer import (
    TransformerDecoderLayerBase,
    TransformerEncoderLayerBase,
)
from torch import Tensor, nn

from admin_nmt.modules.dropout import Dropout
from admin_nmt.modules.head_names import NO_HEADS, LayerHeads
from admin_nmt.modules.multihead_attention import IncrementalState, MultiheadAttention
from admin_nmt.modules.residual import Residual
from admin_nmt.modules.residual_attention import ResidualAttention, residual_kinds
from admin_nmt.modules.score_chain import LayerOutput
from admin_nmt.modules.walk import is_watched
from admin_nmt.ops.relu_dropout import relu_dropout_
from admin_nmt.ops.residual_norm import residual_norm


@dataclass(frozen=True)
class HeadCounts:
    """Heads of one layer; their size stays that of the configuration, D / attention heads.

    Attributes:
        self_attn: of the self-attention.
        encoder_attn: of the encoder-decoder attention; ignored where there is none.
    """

    self_attn: LayerHeads
    encoder_attn: LayerHeads = NO_HEADS


def _use_own_parts(layer: Any, cfg: Any, name: str) -> None:
    """Replace the dropout modules that fairseq's constructor made, by the name that
    `--retain-dropout-modules` knows; note what is to be fused."""
    layer.fused_residual_norm = cfg.fused_residual_norm
    layer.dropout_module = Dropout(layer.dropout_module.p, module_name=name)
    layer.activation_dropout_module = Dropout(layer.activation_dropout_module.p, module_name=name)


def _sublayer(
    layer: Any,
    x: Tensor,
    function: Callable[[Tensor], tuple[Any, ...]],
    residual: Any,
    norm: Any,
) -> tuple[Tensor, list[Any]]:
    """One sublayer of `layer`: `norm(residual(dropout(f(x)), x))`, or with pre-LN
    `residual(dropout(f(norm(x))), x)`.

    Args:
        layer: has the dropout, and says whether LayerNorms come first.
        x: (T, B, D).
        function: f; maps (T, B, D) to a tuple of (T, B, D) and anything else, which is handed on.
        residual: adds branch and shortcut, see `admin_nmt.modules.residual`.
        norm: LayerNorm, or `nn.Identity` (ReZero).

    Returns:
        the output (T, B, D), and what else `function` returned.
    """
    branch, *rest = function(norm(x) if layer.normalize_before else x)
    if layer.fused_residual_norm and _fusible(layer, residual, norm):
        p = layer.dropout_module.active_p
        fused = residual_norm(branch, x, residual.factor, norm.weight, norm.bias, norm.eps, p)
        return fused, rest
    x = residual(layer.dropout_module(branch), x)
    return (x if layer.normalize_before else norm(x)), rest


def _fusible(layer: Any, residual: Any, norm: Any) -> bool:
    """Whether residual, dropout and LayerNorm of a sublayer may be one operation: post-LN, with a
    LayerNorm and a factor on the shortcut, and nobody who watches the modules (ADMIN's profiling
    does)."""
    return (
        not layer.normalize_before
        and residual.factor is not None
        and getattr(norm, "weight", None) is not None
        and not is_watched(residual, norm, layer.dropout_module)
    )


def _ffn(layer: Any, x: Tensor) -> Tensor:
    """The FFN and its sublayer; `x` and the result are (T, B, D)."""

    def function(x: Tensor) -> tuple[Tensor]:
        return (layer.fc2(_inner(layer, x)),)

    return _sublayer(layer, x, function, layer.ffn_residual, layer.final_layer_norm)[0]


def _inner(layer: Any, x: Tensor) -> Tensor:
    """The inner part of the FFN, `dropout(activation(fc1(x)))`; with ReLU in place, where that is safe.

    The output of `fc1` is the largest tensor of a layer, (T, B, 4 D): a second one of its size costs
    more on CPUs in page faults than in arithmetic, and on GPUs memory. Hooks may read it or make it a
    view.
    """
    fc1, dropout = layer.fc1, layer.activation_dropout_module
    hidden = fc1(x)
    if layer.activation_fn is F.relu and type(fc1) is nn.Linear and not is_watched(fc1, dropout):
        return relu_dropout_(hidden, dropout.active_p)
    return dropout(layer.activation_fn(hidden))


def _attention(
    cfg: Any, kind: str, embed_dim: int, heads: LayerHeads, kv_dim: int | None = None
) -> MultiheadAttention:
    """Attention of a kind ("encoder", "decoder", "cross"), residual if `cfg` says so."""
    stack = cfg.encoder if kind == "encoder" else cfg.decoder
    arguments: dict[str, Any] = {
        "embed_dim": embed_dim,
        "num_heads": len(heads.values),
        "kv_dim": kv_dim,
        "dropout": cfg.attention_dropout,
        "head_dim": embed_dim // stack.attention_heads,
    }
    if kind not in residual_kinds(cfg.residual_attention):
        return MultiheadAttention(**arguments)
    return ResidualAttention(
        **arguments,
        score_heads=heads.scores,
        value_heads=heads.values,
        mean=cfg.residual_attention_reduce == "mean",
        in_place=not cfg.checkpoint_activations,
    )


def _carried(
    attention: nn.Module, scores: Tensor | None, layers_below: int
) -> dict[str, Tensor | int | None]:
    """The arguments that only residual attention takes."""
    if isinstance(attention, ResidualAttention):
        return {"prev_scores": scores, "layers_below": layers_below}
    return {}


class AdminTransformerEncoderLayer(TransformerEncoderLayerBase):
    """Self-attention and FFN, each with its own residual connection.

    Args:
        cfg: the model's `AdminTransformerConfig`.
        residuals: the connections of self-attention and FFN, in this order.
        layer_norm: False leaves out both LayerNorms (ReZero).
        heads: how many; by default as `cfg` says.
    """

    def __init__(
        self,
        cfg: Any,
        residuals: tuple[Residual, Residual],
        layer_norm: bool = True,
        heads: HeadCounts | None = None,
    ) -> None:
        self.heads = heads or HeadCounts(LayerHeads.whole(cfg.encoder.attention_heads))
        super().__init__(cfg)
        _use_own_parts(self, cfg, "AdminTransformerEncoderLayer")
        self.self_attn_residual, self.ffn_residual = residuals
        if not layer_norm:
            self.self_attn_layer_norm = self.final_layer_norm = nn.Identity()

    def build_self_attention(self, embed_dim: int, cfg: Any) -> MultiheadAttention:
        """Our attention in place of fairseq's."""
        return _attention(cfg, "encoder", embed_dim, self.heads.self_attn)

    def forward(
        self,
        x: Tensor,
        encoder_padding_mask: Tensor | None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Encode one layer further.

        Args:
            x: (S, B, D).
            encoder_padding_mask: (B, S), true at padding, or None.
            attn_mask: (S, S), nonzero where the query (row) must not see the key (column).

        Returns:
            (S, B, D).
        """
        output: Tensor = self._encode(x, encoder_padding_mask, attn_mask).of_fairseq("encoder")
        return output

    def _encode(
        self,
        x: Tensor,
        encoder_padding_mask: Tensor | None,
        attn_mask: Tensor | None,
        self_scores: Tensor | None = None,
        layers_below: int = 0,
    ) -> LayerOutput:
        if attn_mask is not None:
            # Large but finite, as in fairseq: a padded query may see no key at all.
            hidden = -1e8 if x.dtype == torch.float32 else -1e4
            attn_mask = torch.zeros_like(attn_mask, dtype=x.dtype).masked_fill_(
                attn_mask.to(torch.bool), hidden
            )
        x, (_, *scores) = _sublayer(
            self,
            x,
            lambda x: self.self_attn(
                x,
                key_padding_mask=encoder_padding_mask,
                need_weights=False,
                attn_mask=attn_mask,
                **_carried(self.self_attn, self_scores, layers_below),
            ),
            self.self_attn_residual,
            self.self_attn_layer_norm,
        )
        return LayerOutput(_ffn(self, x), self_scores=scores[0] if scores else None)


class ResidualAttentionEncoderLayer(AdminTransformerEncoderLayer):
    """`AdminTransformerEncoderLayer` whose self-attention adds the scores of the layer below."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        encoder_padding_mask: Tensor | None,
        attn_mask: Tensor | None = None,
        self_scores: Tensor | None = None,
        layers_below: int = 0,
    ) -> LayerOutput:
        """Encode one layer further; arguments as of the plain layer, and

        Args:
            self_scores: scores (B, H, S, S) of the layer below, None in the first layer.
            layers_below: of how many layers they are the sum.
        """
        return self._encode(x, encoder_padding_mask, attn_mask, self_scores, layers_below)


class AdminTransformerDecoderLayer(TransformerDecoderLayerBase):
    """Self-attention, encoder-decoder attention and FFN, each with its own residual connection.

    Args:
        cfg: the model's `AdminTransformerConfig`.
        residuals: the connections in forward order; two of them without encoder-decoder attention.
        no_encoder_attn: leave out the encoder-decoder attention.
        layer_norm: False leaves out all LayerNorms (ReZero).
        heads: how many; by default as `cfg` says.
    """

    # Any: fairseq's base class types these two as always or never None.
    encoder_attn: Any
    encoder_attn_layer_norm: Any

    def __init__(
        self,
        cfg: Any,
        residuals: tuple[Residual, ...],
        no_encoder_attn: bool = False,
        layer_norm: bool = True,
        heads: HeadCounts | None = None,
    ) -> None:
        self.heads = heads or HeadCounts(*[LayerHeads.whole(cfg.decoder.attention_heads)] * 2)
        super().__init__(cfg, no_encoder_attn)
        _use_own_parts(self, cfg, "AdminTransformerDecoderLayer")
        self.self_attn_residual, *cross, self.ffn_residual = residuals
        self.encoder_attn_residual: Any = cross[0] if cross else None
        if not layer_norm:
            self.self_attn_layer_norm = self.final_layer_norm = nn.Identity()
            self.encoder_attn_layer_norm = None if no_encoder_attn else nn.Identity()

    def build_self_attention(
        self, embed_dim: int, cfg: Any, add_bias_kv: bool = False, add_zero_attn: bool = False
    ) -> MultiheadAttention:
        """Our attention in place of fairseq's."""
        return _attention(cfg, "decoder", embed_dim, self.heads.self_attn)

    def build_encoder_attention(self, embed_dim: int, cfg: Any) -> MultiheadAttention:
        """Our attention in place of fairseq's."""
        return _attention(
            cfg, "cross", embed_dim, self.heads.encoder_attn, kv_dim=cfg.encoder.embed_dim
        )

    def forward(
        self,
        x: Tensor,
        encoder_out: Tensor | None = None,
        encoder_padding_mask: Tensor | None = None,
        incremental_state: IncrementalState | None = None,
        prev_self_attn_state: list[Tensor] | None = None,
        prev_attn_state: list[Tensor] | None = None,
        self_attn_mask: Tensor | None = None,
        self_attn_padding_mask: Tensor | None = None,
        need_attn: bool = False,
        need_head_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, None]:
        """Decode `x` (T, B, D) given `encoder_out` (S, B, D_encoder); arguments as in fairseq.

        Returns:
            the output (T, B, D); the encoder-decoder attention weights if asked for,
            (B, T, S) or (H, B, T, S) with `need_head_weights`; None (fairseq's third place).

        Raises:
            ValueError: `prev_self_attn_state` or `prev_attn_state` is given; they serve fairseq's
                ONNX export, which is not supported.
        """
        if prev_self_attn_state is not None or prev_attn_state is not None:
            raise ValueError("admin_transformer does not take attention states from outside")
        output: tuple[Tensor, Tensor | None, None] = self._decode(
            x,
            encoder_out,
            encoder_padding_mask,
            incremental_state,
            self_attn_mask,
            self_attn_padding_mask,
            need_attn,
            need_head_weights,
        ).of_fairseq("decoder")
        return output

    def _decode(
        self,
        x: Tensor,
        encoder_out: Tensor | None,
        encoder_padding_mask: Tensor | None,
        incremental_state: IncrementalState | None,
        self_attn_mask: Tensor | None,
        self_attn_padding_mask: Tensor | None,
        need_attn: bool,
        need_head_weights: bool,
        self_scores: Tensor | None = None,
        cross_scores: Tensor | None = None,
        layers_below: int = 0,
    ) -> LayerOutput:
        x, (_, *own) = _sublayer(
            self,
            x,
            lambda x: self.self_attn(
                x,
                key_padding_mask=self_attn_padding_mask,
                incremental_state=incremental_state,
                need_weights=False,
                attn_mask=self_attn_mask,
                **_carried(self.self_attn, self_scores, layers_below),
            ),
            self.self_attn_residual,
            self.self_attn_layer_norm,
        )
        attn: Tensor | None = None
        cross: list[Tensor] = []
        if self.encoder_attn is not None and encoder_out is not None:
            x, (attn, *cross) = _sublayer(
                self,
                x,
                lambda x: self.encoder_attn(
                    x,
                    key=encoder_out,
                    key_padding_mask=encoder_padding_mask,
                    incremental_state=incremental_state,
                    static_kv=True,
                    # fairseq computes weights in every layer outside training; the decoder reads
                    # only those of the layer for which it sets need_attn.
                    need_weights=need_attn,
                    need_head_weights=need_head_weights,
                    **_carried(self.encoder_attn, cross_scores, layers_below),
                ),
                self.encoder_attn_residual,
                self.encoder_attn_layer_norm,
            )
        return LayerOutput(
            _ffn(self, x), attn, own[0] if own else None, cross[0] if cross else None
        )


class ResidualAttentionDecoderLayer(AdminTransformerDecoderLayer):
    """`AdminTransformerDecoderLayer` with attention that adds the scores of the layer below."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        encoder_out: Tensor | None = None,
        encoder_padding_mask: Tensor | None = None,
        incremental_state: IncrementalState | None = None,
        self_attn_mask: Tensor | None = None,
        self_attn_padding_mask: Tensor | None = None,
        need_attn: bool = False,
        need_head_weights: bool = False,
        self_scores: Tensor | None = None,
        cross_scores: Tensor | None = None,
        layers_below: int = 0,
    ) -> LayerOutput:
        """Decode `x` (T, B, D) given `encoder_out` (S, B, D_encoder); arguments as in fairseq, and

        Args:
            self_scores: scores (B, H, T, T) of self-attention in the layer below; None in the first
                layer, and where self-attention is plain.
            cross_scores: the same of encoder-decoder attention, (B, H, T, S).
            layers_below: of how many layers they are the sum.
        """
        return self._decode(
            x,
            encoder_out,
            encoder_padding_mask,
            incremental_state,
            self_attn_mask,
            self_attn_padding_mask,
            need_attn,
            need_head_weights,
            self_scores,
            cross_scores,
            layers_below,
        )
