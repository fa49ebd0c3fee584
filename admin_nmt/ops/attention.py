"""Scaled dot-product attention in separate steps: masks, weights, weighted sum of the values.

    weights = softmax(scale * q k^T + bias)          bias: -inf where a query must not see a key
    context = dropout(weights) v

`admin_nmt.modules.multihead_attention` uses it where the weights are asked for and where it is faster on the
CPU; elsewhere it calls PyTorch's fused kernel. Shape letters: see `admin_nmt.ops`.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from admin_nmt.ops.dropout import dropout
from admin_nmt.ops.recording import recorded, recording_number


class _Bias(NamedTuple):
    """An additive mask and what it was made of."""

    attn_mask: Tensor | None
    versions: tuple[int, ...]
    recording: int
    bias: Tensor


#: Padding mask -> the additive mask made of it last. All layers of a stack get the same masks: one
#: makes it, the others find it, for as long as the padding mask lives.
_biases = WeakTensorKeyDictionary()


def attention_bias(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """One additive mask made of fairseq's two masks.

    Args:
        attn_mask: (T, S), added to the scores (-inf hides a position), or None.
        key_padding_mask: (B, S), true where the key is padding, or None.
        dtype: of the result.

    Returns:
        a tensor that broadcasts to (B, H, T, S), or None when nothing is hidden. It is cached and returned
        again for the same masks, so callers must not write to it.
    """
    if key_padding_mask is None:
        return None if attn_mask is None else attn_mask.to(dtype)
    recording = recording_number()
    if recorded(key_padding_mask.device) and not recording:
        # To run again with other values in the same masks; we are not told when another one begins.
        return _bias(attn_mask, key_padding_mask, dtype)
    masks = (key_padding_mask,) if attn_mask is None else (key_padding_mask, attn_mask)
    if any(mask.is_inference() for mask in masks):  # they do not count their changes
        return _bias(attn_mask, key_padding_mask, dtype)
    versions = tuple(mask._version for mask in masks)
    found = _biases.get(key_padding_mask)
    if (
        found is None
        or found.attn_mask is not attn_mask
        or found.versions != versions
        or found.recording != recording
        or found.bias.dtype != dtype
    ):
        bias = _bias(attn_mask, key_padding_mask, dtype)
        if bias.is_inference():  # made of other masks in inference mode; no backward may keep that
            return bias
        found = _Bias(attn_mask, versions, recording, bias)
        _biases[key_padding_mask] = found
    return found.bias


def _bias(attn_mask: Tensor | None, key_padding_mask: Tensor, dtype: torch.dtype) -> Tensor:
    bias = torch.zeros(key_padding_mask.shape, dtype=dtype, device=key_padding_mask.device)
    bias = bias.masked_fill_(key_padding_mask.to(torch.bool), float("-inf"))[:, None, None, :]
    return bias if attn_mask is None else bias + attn_mask.to(dtype)


def fully_masked_queries(bias: Tensor | None) -> Tensor | None:
    """Queries that may see no key, for which a softmax would give NaN: with padding on the left, those at
    padding positions may see only themselves, and padding is hidden.

    Args:
        bias: broadcastable to (B, H, T, S), or None.

    Returns:
        a mask of the shape of `bias` with S = 1, true for such queries; None if there are none. On
        a GPU, where asking would wait for the device, and while a CUDA graph is recorded, always a mask.
    """
    if bias is None:
        return None
    hidden = bias.isneginf().all(dim=-1, keepdim=True)
    unasked = hidden.device.type != "cpu" or recorded(hidden.device)
    return hidden if unasked or hidden.any() else None


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """`softmax(scale * q k^T + bias)` over the keys; the softmax of 16-bit inputs is computed in float32.

    Args:
        q: (B, H, T, K).
        k: (B, H, S, K).
        bias: broadcastable to (B, H, T, S), or None.
        scale: factor of the scores, usually K ** -0.5.

    Returns:
        (B, H, T, S), in the dtype of `q`; 0 for queries that see no key.

    Examples:
        >>> q, k = torch.ones(1, 1, 1, 4), torch.ones(1, 1, 2, 4)
        >>> attention_weights(q, k, torch.tensor([0.0, -torch.inf]), scale=0.5)
        tensor([[[[1., 0.]]]])
    """
    scores = torch.matmul(q * scale, k.transpose(-2, -1))
    if bias is not None:
        scores = scores + bias
    hidden = fully_masked_queries(bias)
    if hidden is not None:  # before the softmax too: it would hand NaN to the backward
        scores = scores.masked_fill(hidden, 0.0)
    dtype = torch.float32 if scores.dtype in (torch.float16, torch.bfloat16) else None
    weights = torch.softmax(scores, dim=-1, dtype=dtype).to(q.dtype)
    return weights if hidden is None else weights.masked_fill(hidden, 0.0)


def attend(weights: Tensor, v: Tensor, dropout_p: float) -> Tensor:
    """Weighted sum of the values, with dropout on the weights.

    Args:
        weights: (B, H, T, S).
        v: (B, H, S, K).
        dropout_p: probability with which a weight is dropped (0 outside training).

    Returns:
        (B, H, T, K).
    """
    return torch.matmul(dropout(weights, dropout_p), v)
