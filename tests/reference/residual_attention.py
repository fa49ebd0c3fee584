"""Residual attention from the formula (RealFormer, section 3.2), by PyTorch's autograd."""

import math

import torch
from torch import Tensor


def naive(
    q: Tensor, k: Tensor, v: Tensor, prev: Tensor | None, bias: Tensor | None, n: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The formula with PyTorch's autograd: context, scores, weights."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if prev is not None:
        scores = scores + prev
    logits = scores / n + (0 if bias is None else bias)
    blind = logits.isneginf().all(-1, keepdim=True)  # such a query attends to nothing
    weights = torch.softmax(logits.masked_fill(blind, 0), dim=-1) * ~blind
    return weights @ v, scores, weights


def random_bias(shape: tuple[int, int, int, int, int], kind: str) -> Tensor | None:
    """Padding (B, 1, 1, S), causal (T, S) or both; "left": both, with padding on the left, where
    queries at padding see no key."""
    b, _, t, s, _ = shape
    lengths = torch.randint(1, s + 1, (b,))
    padding = torch.zeros(b, s, dtype=torch.float64)
    places = torch.arange(s).flip(0) if kind == "left" else torch.arange(s)
    padding.masked_fill_(places >= lengths[:, None], float("-inf"))
    causal = torch.full((t, s), float("-inf"), dtype=torch.float64).triu(1)
    return {
        "none": None,
        "padding": padding[:, None, None],
        "causal": causal,
        "both": padding[:, None, None] + causal,
        "left": padding[:, None, None] + causal,
    }[kind]
