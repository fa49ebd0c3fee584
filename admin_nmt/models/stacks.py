"""fairseq's encoder and decoder with our layers; everything else is inherited."""

from typing import Any

import torch
from fairseq.distributed import fsdp_wrap
from fairseq.models.transformer import TransformerDecoderBase, TransformerEncoderBase
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from torch import Tensor, nn

from admin_nmt.initialization.scheme import Scheme, Stack
from admin_nmt.models.heads import is_residual
from admin_nmt.modules.attention_kinds import ATTENTION_KINDS
from admin_nmt.modules.dropout import Dropout
from admin_nmt.modules.residual import Residual
from admin_nmt.modules.score_chain import ScoreChain
from admin_nmt.modules.transformer_layer import (
    AdminTransformerDecoderLayer,
    AdminTransformerEncoderLayer,
    HeadCounts,
    ResidualAttentionDecoderLayer,
    ResidualAttentionEncoderLayer,
)
from admin_nmt.modules.walk import all_layers
from admin_nmt.ops.recording import recorded


def head_counts(cfg: Any, stack: Stack, number: int) -> HeadCounts:
    """Heads of layer `number` (from 0) of a stack."""
    heads = cfg.heads
    if stack == "encoder":
        return HeadCounts(self_attn=heads["E"][number])
    if "A" not in heads:
        return HeadCounts(self_attn=heads["D"][number])
    return HeadCounts(self_attn=heads["D"][number], encoder_attn=heads["A"][number])


class _LayerSupply:
    """Hands out the residual connections and head counts of one stack in forward order.

    fairseq's constructors build layers one by one without telling a layer its place; this object
    keeps the place while the stack is built.
    """

    def __init__(self, cfg: Any, scheme: Scheme, stack: Stack, embed_dim: int) -> None:
        self.cfg = cfg
        self.scheme = scheme
        self.stack: Stack = stack
        self.embed_dim = embed_dim
        self.position = 0
        self.layer = 0

    def heads(self) -> HeadCounts:
        """Those of the next layer."""
        number, self.layer = self.layer, self.layer + 1
        return head_counts(self.cfg, self.stack, number)

    def take(self, count: int) -> tuple[Residual, ...]:
        """The connections of the next `count` sublayers."""
        first, self.position = self.position, self.position + count
        return tuple(
            self.scheme.residual(self.stack, position, self.embed_dim)
            for position in range(first, self.position)
        )


def _wrap(layer: nn.Module, cfg: Any) -> nn.Module:
    """Activation checkpointing and FSDP as fairseq applies them."""
    if cfg.checkpoint_activations:
        layer = checkpoint_wrapper(layer, offload_to_cpu=cfg.offload_activations)
    return fsdp_wrap(
        layer, min_num_params=0 if cfg.checkpoint_activations else cfg.min_params_to_wrap
    )


def carries_scores(cfg: Any, stack: Stack) -> bool:
    """Whether an attention of the stack is residual (`--residual-attention`)."""
    return any(
        is_residual(cfg, letter)
        for letter, kind in ATTENTION_KINDS.items()
        if kind.stack == stack and not (letter == "A" and cfg.no_cross_attention)
    )


class AdminTransformerEncoder(TransformerEncoderBase):
    """fairseq's Transformer encoder built from `AdminTransformerEncoderLayer`.

    Args:
        cfg: the model's `AdminTransformerConfig`.
        dictionary: of the source language.
        embed_tokens: source embeddings (V, D).
        scheme: decides residual connections and LayerNorms.
    """

    def __init__(self, cfg: Any, dictionary: Any, embed_tokens: nn.Embedding, scheme: Scheme):
        self._supply = _LayerSupply(cfg, scheme, "encoder", cfg.encoder.embed_dim)
        super().__init__(cfg, dictionary, embed_tokens)
        del self._supply
        self.dropout_module = Dropout(cfg.dropout, module_name="TransformerEncoder")
        if carries_scores(cfg, "encoder"):
            layers = all_layers(self.layers)
            self.layers: nn.ModuleList = ScoreChain(layers, "encoder", self.encoder_layerdrop)
        scheme.initialize("encoder", all_layers(self.layers))

    def forward_scriptable(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None = None,
        return_all_hiddens: bool = False,
        token_embeddings: Tensor | None = None,
    ) -> dict[str, list[Any]]:
        """fairseq's encoder; what its `forward` calls.

        Whether there is padding is asked of the tokens, except where the operations are recorded for
        other batches too: there the layers always get the mask.

        Args:
            src_tokens: (B, S).
            src_lengths: ignored, as by fairseq.
            return_all_hiddens: also return the input of the first layer and the output of each.
            token_embeddings: (B, S, D), in place of those of `src_tokens`.

        Returns:
            `encoder_out` (S, B, D), `encoder_padding_mask` (B, S) true at padding,
            `encoder_embedding` (B, S, D), `src_lengths` (B, 1), each in a list of one;
            `encoder_states`, a list of (S, B, D), empty unless asked for.
        """
        padding = src_tokens.eq(self.padding_idx)
        x, embedding = self.forward_embedding(src_tokens, token_embeddings)
        mask = padding if recorded(src_tokens.device) or padding.any() else None
        if mask is not None:
            x = x * (1 - mask.unsqueeze(-1).type_as(x))
        x = x.transpose(0, 1)
        states = [x] if return_all_hiddens else []
        for layer in self.layers:
            x = layer(x, encoder_padding_mask=mask)
            if return_all_hiddens:  # else each can go when the next is there
                states.append(x)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return {
            "encoder_out": [x],
            "encoder_padding_mask": [padding],
            "encoder_embedding": [embedding],
            "encoder_states": states,
            "fc_results": [],
            "src_tokens": [],
            "src_lengths": [padding.logical_not().sum(1, True, dtype=torch.int32)],
        }

    def build_encoder_layer(self, cfg: Any) -> nn.Module:
        """Called by fairseq's constructor once per layer."""
        first, second = self._supply.take(2)
        kind = (
            ResidualAttentionEncoderLayer
            if carries_scores(cfg, "encoder")
            else AdminTransformerEncoderLayer
        )
        layer = kind(
            cfg,
            (first, second),
            layer_norm=self._supply.scheme.layer_norm,
            heads=self._supply.heads(),
        )
        return _wrap(layer, cfg)


class AdminTransformerDecoder(TransformerDecoderBase):
    """fairseq's Transformer decoder built from `AdminTransformerDecoderLayer`.

    Args: as for the encoder, with target dictionary and embeddings, and
        no_encoder_attn: leave out encoder-decoder attention.
    """

    def __init__(
        self,
        cfg: Any,
        dictionary: Any,
        embed_tokens: nn.Embedding,
        scheme: Scheme,
        no_encoder_attn: bool = False,
    ) -> None:
        self._supply = _LayerSupply(cfg, scheme, "decoder", cfg.decoder.embed_dim)
        super().__init__(cfg, dictionary, embed_tokens, no_encoder_attn=no_encoder_attn)
        del self._supply
        self._future_mask = self._current_mask = torch.empty(0)
        self.dropout_module = Dropout(cfg.dropout, module_name="TransformerDecoder")
        if carries_scores(cfg, "decoder"):
            layers = all_layers(self.layers)
            self.layers: nn.ModuleList = ScoreChain(layers, "decoder", self.decoder_layerdrop)
        scheme.initialize("decoder", all_layers(self.layers))

    def build_decoder_layer(self, cfg: Any, no_encoder_attn: bool = False) -> nn.Module:
        """Called by fairseq's constructor once per layer."""
        kind = (
            ResidualAttentionDecoderLayer
            if carries_scores(cfg, "decoder")
            else AdminTransformerDecoderLayer
        )
        layer = kind(
            cfg,
            self._supply.take(2 if no_encoder_attn else 3),
            no_encoder_attn=no_encoder_attn,
            layer_norm=self._supply.scheme.layer_norm,
            heads=self._supply.heads(),
        )
        return _wrap(layer, cfg)

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Any = None,
        incremental_state: Any = None,
        features_only: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """fairseq's decoder; arguments and result are those of fairseq's.

        With `--full-context-alignment` the attention returned is that of a second pass, in which every
        place sees the whole translation, as in fairseq's `transformer_align`.
        """
        x, extra = super().forward(
            prev_output_tokens, encoder_out, incremental_state, features_only, **kwargs
        )
        # Not for a layer that the caller asks for: another one than was trained to align.
        trained = self.cfg.full_context_alignment and kwargs.get("alignment_layer") is None
        if trained and incremental_state is None and not features_only:
            _, whole = self.extract_features(
                prev_output_tokens, encoder_out, full_context_alignment=True
            )
            extra |= {"attn": whole["attn"]}
        return x, extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Any,
        incremental_state: Any = None,
        full_context_alignment: bool = False,
        alignment_layer: int | None = None,
        alignment_heads: int | None = None,
    ) -> Any:
        """Called by fairseq's `forward`; arguments and result are those of fairseq's.

        Without `alignment_layer` the attention returned is what was trained to align, if something was.
        """
        # fairseq asks the tokens for padding unless this is set, which has no other use here.
        self.cross_self_attention = recorded(prev_output_tokens.device)
        if alignment_layer is None and self.cfg.alignment_layer is not None:
            alignment_layer = self.cfg.alignment_layer
            alignment_heads = self.cfg.alignment_heads
        return super().extract_features(
            prev_output_tokens,
            encoder_out,
            incremental_state,
            full_context_alignment,
            alignment_layer,
            alignment_heads,
        )

    def buffered_future_mask(self, tensor: Tensor) -> Tensor:
        """Causal mask (T, T) for `tensor` (T, B, D): -inf above the diagonal, cached. All layers get the
        same tensor, so that what is made of it is made once."""
        length = tensor.size(0)
        mask: Tensor = self._future_mask
        if (
            mask.size(0) < length
            or mask.device != tensor.device
            or mask.dtype != tensor.dtype
            or (mask.is_inference() and not tensor.is_inference())  # no backward may keep that
        ):
            mask = tensor.new_full((length, length), float("-inf")).triu_(1)
            self._future_mask = self._current_mask = mask
        if self._current_mask.size(0) != length:
            self._current_mask = mask[:length, :length]
        return self._current_mask
