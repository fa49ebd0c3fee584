"""Multi-head attention with fused projections.

Self-attention projects queries, keys and values by one matrix (`qkv_proj`), encoder-decoder
attention keys and values by one (`kv_proj`): fewer and larger matrix products than fairseq's three.
State dicts with fairseq's `q_proj`, `k_proj`, `v_proj` are converted when they are loaded
(`fuse_projections`), and `split_projections` gives them back.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.incremental_decoding_utils import with_incremental_state
from torch import Tensor, nn

from admin_nmt.modules.dropout import Dropout
from admin_nmt.ops.attention import attend, attention_bias, attention_weights

IncrementalState = dict[str, dict[str, Tensor | None]]


@with_incremental_state
class MultiheadAttention(nn.Module):
    """Attention over H heads of size K, equal in result to fairseq's `MultiheadAttention`.

    A module whose heads were removed has H * K < D. Without any head left it has no projections,
    and its output is the bias of the output projection (`out_proj.bias`).

    Args:
        embed_dim: D, size of queries and of the output.
        num_heads: H; must divide D unless `head_dim` is given.
        kv_dim: size of keys and values of encoder-decoder attention (the encoder's width);
            None makes it self-attention.
        dropout: probability with which an attention weight is dropped in training.
        head_dim: K; D / H by default.
        score_heads: heads that have queries and keys; H by default. More than H is for attention
            that carries scores: there a head may serve the layers above without values of its own.

    Attributes:
        head_gate: factor on the output of each head, before the output projection: (H,), or
            broadcastable to (B, H, T, K); it may require a gradient. None leaves the operation out.

    Raises:
        ValueError: `num_heads` does not divide `embed_dim` and `head_dim` is not given.
    """

    head_gate: Tensor | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        kv_dim: int | None = None,
        dropout: float = 0.0,
        head_dim: int | None = None,
        score_heads: int | None = None,
    ) -> None:
        super().__init__()
        if head_dim is None:
            if num_heads < 1 or embed_dim % num_heads:
                raise ValueError(f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}")
            head_dim = embed_dim // num_heads
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.score_heads = num_heads if score_heads is None else score_heads
        #: Rows of the q, k and v projections.
        self.inner_dims = tuple(
            heads * head_dim for heads in (self.score_heads, self.score_heads, num_heads)
        )
        self.scaling = head_dim**-0.5
        self.self_attention = kv_dim is None
        self.encoder_decoder_attention = not self.self_attention
        self.dropout_module = Dropout(dropout, module_name="MultiheadAttention")
        self.head_gate = None
        if self.score_heads and kv_dim is None:
            self.qkv_proj = nn.Linear(embed_dim, sum(self.inner_dims))
        elif self.score_heads:
            self.q_proj = nn.Linear(embed_dim, self.inner_dims[0])
            self.kv_proj = nn.Linear(kv_dim or embed_dim, sum(self.inner_dims[1:]))
        self.out_proj: nn.Linear | _Bias = (
            nn.Linear(num_heads * head_dim, embed_dim) if num_heads else _Bias(embed_dim)
        )
        self.reset_parameters()

    def projections(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Views (weight, bias) of the q, k and v projections inside the fused ones."""
        if self.score_heads == 0:
            return {}
        parts = [self.qkv_proj] if self.self_attention else [self.q_proj, self.kv_proj]
        sizes = (
            [self.inner_dims] if self.self_attention else [self.inner_dims[:1], self.inner_dims[1:]]
        )
        weights = [
            w for part, size in zip(parts, sizes, strict=True) for w in part.weight.split(size)
        ]
        biases = [b for part, size in zip(parts, sizes, strict=True) for b in part.bias.split(size)]
        found = zip("qkv", zip(weights, biases, strict=True), strict=True)
        return {name: part for name, part in found if part[0].numel()}

    def reset_parameters(self) -> None:
        """fairseq's initialisation: Xavier per projection, with gain 1/sqrt(2) for equal widths."""
        nn.init.zeros_(self.out_proj.bias)
        if self.score_heads == 0:
            return
        equal_widths = self.self_attention or self.kv_proj.in_features == self.embed_dim
        with torch.no_grad():
            for weight, _ in self.projections().values():
                nn.init.xavier_uniform_(weight, gain=1 / math.sqrt(2) if equal_widths else 1.0)
        if isinstance(self.out_proj, nn.Linear):
            nn.init.xavier_uniform_(self.out_proj.weight)

    def forward(
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
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; the arguments are those of fairseq's module.

        Args:
            query: (T, B, D).
            key: (S, B, kv_dim) for encoder-decoder attention; self-attention ignores it.
            value: ignored, it is the key.
            key_padding_mask: (B, S), true where the key is padding.
            incremental_state: cache of keys and values of earlier steps, changed in place.
            need_weights: also return the attention weights, averaged over heads.
            static_kv: the keys never change during incremental decoding: compute them once.
            attn_mask: (T, S), added to the scores.
            need_head_weights: return the weights of every head (implies `need_weights`).

        Returns:
            the output (T, B, D), and the weights: None, (B, T, S), or (H, B, T, S) per head. A
            module without heads returns zeros; in place of those per head (1, B, T, S), because
            fairseq's decoder averages over heads, and an average over none is NaN.
        """
        q, k, v, key_padding_mask = self._project(
            query, key, key_padding_mask, incremental_state, static_kv
        )
        wanted = need_weights or need_head_weights
        if self.num_heads == 0:
            none = q.new_zeros((1, q.shape[0], q.shape[2], k.shape[2])) if wanted else None
            return self.out_proj(query), returned_weights(none, need_head_weights)
        bias = attention_bias(attn_mask, key_padding_mask, q.dtype)
        dropout_p = self.dropout_module.active_p
        weights = None
        if wanted:
            weights = attention_weights(q, k, bias, self.scaling)
            context = attend(weights, v, dropout_p)
        elif q.device.type == "cpu" and (dropout_p > 0 or _short_and_half(q, k)):
            # PyTorch's CPU kernel has no dropout and would fall back to slower plain code; in half
            # precision it takes the greater part of a training step on sentences.
            context = attend(attention_weights(q, k, bias, self.scaling), v, dropout_p)
        else:
            context = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout_p)
        if weights is not None:
            weights = weights.transpose(0, 1)
        return self._output(context), returned_weights(weights, need_head_weights)

    def _output(self, context: Tensor) -> Tensor:
        """Project what the heads read, (B, H, T, K), to (T, B, D)."""
        if self.head_gate is not None:
            gate = self.head_gate
            context = context * (gate[:, None, None] if gate.dim() == 1 else gate)
        time_first, batch_first = context.permute(2, 0, 1, 3), context.transpose(1, 2)
        if batch_first.is_contiguous() and not time_first.is_contiguous():
            # So PyTorch's memory-efficient kernel lays it. The kernel keeps it for the backward: a
            # projection of a copy would keep that too.
            return self.out_proj(batch_first.flatten(2)).transpose(0, 1).contiguous()
        return self.out_proj(time_first.flatten(2))

    def _project(
        self,
        query: Tensor,
        key: Tensor | None,
        key_padding_mask: Tensor | None,
        incremental_state: IncrementalState | None,
        static_kv: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries (B, H, T, K), keys and values (B, H, S, K) with those of earlier steps, mask."""
        cache = self._get_input_buffer(incremental_state) if incremental_state is not None else {}
        if self.self_attention:
            q, k, v = self._split_heads("qkv_proj", query, self.inner_dims)
        else:
            (q,) = self._split_heads("q_proj", query, self.inner_dims[:1])
            if static_kv and cache:
                return q, cache["prev_key"], cache["prev_value"], cache["prev_key_padding_mask"]
            assert key is not None
            k, v = self._split_heads("kv_proj", key, self.inner_dims[1:])
        if incremental_state is None:
            return q, k, v, key_padding_mask
        if cache and not static_kv:
            key_padding_mask = _join_padding(
                cache["prev_key_padding_mask"], key_padding_mask, cache["prev_key"], k
            )
            k = torch.cat([cache["prev_key"], k], dim=2)
            v = torch.cat([cache["prev_value"], v], dim=2)
        self._set_input_buffer(
            incremental_state,
            {"prev_key": k, "prev_value": v, "prev_key_padding_mask": key_padding_mask},
        )
        return q, k, v, key_padding_mask

    def _split_heads(
        self, projection: str, x: Tensor, sizes: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        """Project `x` (L, B, D): a tensor (B, H, L, K) for each of the `sizes` H * K, views of one."""
        x = getattr(self, projection)(x) if self.score_heads else x[..., :0]
        return tuple(
            part.unflatten(2, (size // self.head_dim, self.head_dim)).permute(1, 2, 0, 3)
            for part, size in zip(x.split(sizes, dim=2), sizes, strict=True)
        )

    def reorder_incremental_state(
        self, incremental_state: IncrementalState, new_order: Tensor
    ) -> None:
        """Let the cache follow the beams: row i becomes the old row `new_order[i]`.

        Rows that stay as many as they are must stay within their sentences, as fairseq's attention
        expects too: the beams of a sentence share the encoder's keys, which need no copy then.
        """
        cache = self._get_input_buffer(incremental_state)
        if not cache:
            return
        if self.encoder_decoder_attention and len(cache["prev_key"]) == len(new_order):
            return
        reordered = {
            name: None if entry is None else entry.index_select(0, new_order)
            for name, entry in cache.items()
        }
        self._set_input_buffer(incremental_state, reordered)

    # Given by `with_incremental_state`.
    get_incremental_state: Any
    set_incremental_state: Any

    def _get_input_buffer(self, incremental_state: IncrementalState | None) -> dict:
        return self.get_incremental_state(incremental_state, "attn_state") or {}

    def _set_input_buffer(
        self, incremental_state: IncrementalState, buffer: dict[str, Tensor | None]
    ) -> None:
        self.set_incremental_state(incremental_state, "attn_state", buffer)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Called by fairseq before loading: accept fairseq's separate projections."""
        fuse_projections(state_dict, name, self.self_attention)


def _short_and_half(q: Tensor, k: Tensor) -> bool:
    """Half precision, and scores so small that keeping them (PyTorch's kernel does not) is cheap."""
    return q.dtype in (torch.float16, torch.bfloat16) and q.shape[2] * k.shape[2] <= 256**2


def returned_weights(weights: Tensor | None, of_heads: bool) -> Tensor | None:
    """Weights (H, B, T, S) as they are, or their average over heads."""
    return weights if weights is None or of_heads else weights.mean(dim=0)


class _Bias(nn.Module):
    """Output projection of an attention without heads: its bias for every query."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(embed_dim))

    def forward(self, query: Tensor) -> Tensor:
        """The bias in the shape of `query` (T, B, D)."""
        return self.bias.expand_as(query)


def _join_padding(
    earlier: Tensor | None, current: Tensor | None, earlier_k: Tensor, k: Tensor
) -> Tensor | None:
    """Padding mask (B, S_earlier + S) of cached and new keys; None when there is no padding."""
    if earlier is None and current is None:
        return None
    if earlier is None:
        earlier = k.new_zeros((k.shape[0], earlier_k.shape[2]), dtype=torch.bool)
    if current is None:
        current = k.new_zeros((k.shape[0], k.shape[2]), dtype=torch.bool)
    return torch.cat([earlier.to(torch.bool), current.to(torch.bool)], dim=1)


def _fused_parts(self_attention: bool) -> tuple[str, tuple[str, ...]]:
    """Name of the fused projection and of its parts, in order."""
    return (
        ("qkv_proj", ("q_proj", "k_proj", "v_proj"))
        if self_attention
        else (
            "kv_proj",
            ("k_proj", "v_proj"),
        )
    )


def fuse_projections(state_dict: dict[str, Tensor], name: str, self_attention: bool) -> None:
    """Join fairseq's projections of the attention module `name` in place, if they are there.

    Checkpoints from before 2019 have one `in_proj_weight` in every attention.
    """
    fused, parts = _fused_parts(self_attention)
    for kind in ("weight", "bias"):
        old = state_dict.pop(f"{name}.in_proj_{kind}", None)
        if old is not None:
            for part, piece in zip(("q_proj", "k_proj", "v_proj"), old.chunk(3), strict=True):
                state_dict[f"{name}.{part}.{kind}"] = piece
        keys = [f"{name}.{part}.{kind}" for part in parts]
        if all(key in state_dict for key in keys):
            state_dict[f"{name}.{fused}.{kind}"] = torch.cat([state_dict.pop(k) for k in keys])


def split_projections(state_dict: dict[str, Tensor], name: str, self_attention: bool) -> None:
    """Undo `fuse_projections` in place: fairseq's names, each its own tensor.

    Raises:
        ValueError: projections of unequal sizes (heads without values), which fairseq's lacks.
    """
    fused, parts = _fused_parts(self_attention)
    for kind in ("weight", "bias"):
        key = f"{name}.{fused}.{kind}"
        if key in state_dict:
            if len(state_dict[key]) % len(parts):
                raise ValueError(f"{key} does not fall into {len(parts)} equal parts")
            pieces = state_dict.pop(key).chunk(len(parts))
            for part, piece in zip(parts, pieces, strict=True):
                state_dict[f"{name}.{part}.{kind}"] = piece.clone()
