"""R-Drop and label smoothing token by token and type by type, straight from the papers, float64."""

import math

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> list[Tensor]:
    total = torch.zeros((), dtype=torch.float64)
    highest = logits.detach().max()
    for z in logits:
        total = total + (z - highest).exp()
    return [z - highest - total.log() for z in logits]


def smoothed_nll(lprobs: list[Tensor], y: int, epsilon: float, over: str) -> Tensor:
    """Cross-entropy with the smoothed target distribution, written out as a distribution."""
    V = len(lprobs)
    loss = torch.zeros((), dtype=torch.float64)
    for j in range(V):
        if over == "all":
            q = epsilon / V + (1 - epsilon if j == y else 0)
        else:
            q = 1 - epsilon if j == y else epsilon / (V - 1)
        loss = loss - q * lprobs[j]
    return loss


def kl(p: list[Tensor], q: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(p, q, strict=True):
        total = total + a.exp() * (a - b)
    return total


def objective(
    logits: Tensor, target: list[int], epsilon: float, over: str, alpha: float, pad: int
) -> tuple[Tensor, float, float]:
    """(loss, nll, kl) summed over tokens; `logits` (m, N, V). KL over ordered pairs of passes."""
    m = logits.shape[0]
    loss = torch.zeros((), dtype=torch.float64)
    nll = divergence = 0.0
    for n, y in enumerate(target):
        if y == pad:
            continue
        passes = [log_softmax(logits[i, n]) for i in range(m)]
        for lprobs in passes:
            loss = loss + smoothed_nll(lprobs, y, epsilon, over)
            nll -= lprobs[y].item()
        pairs = [(i, j) for i in range(m) for j in range(m) if i != j]
        for i, j in pairs:
            term = kl(passes[i], passes[j]) / len(pairs)
            loss = loss + alpha * term
            divergence += term.item()
    assert math.isfinite(nll)
    return loss, nll, divergence
