"""Word-level distillation as loops over tokens and types (Hinton et al. 2015; Kim & Rush 2016)."""

import math

import torch
from torch import Tensor


def softmax(logits: list[Tensor], temperature: float) -> list[Tensor]:
    """Of a list of scalars."""
    powers = [torch.exp(logit / temperature) for logit in logits]
    total = sum(powers)
    return [power / total for power in powers]


def objective(
    logits: Tensor,
    teacher_logits: Tensor,
    target: list[int],
    epsilon: float,
    over: str,
    share: float,
    temperature: float,
    pad: int,
) -> tuple[Tensor, float, float]:
    """Loss, nll and KL of (N, V) logits, summed over the tokens that are not padding."""
    loss, nll, divergence = logits.new_zeros(()), 0.0, 0.0
    V = logits.shape[1]
    for row, taught, y in zip(logits, teacher_logits, target, strict=True):
        if y == pad:
            continue
        p = softmax(list(row), 1.0)
        smoothed = row.new_zeros(())
        for j in range(V):
            if over == "all":
                mass = epsilon / V + (1 - epsilon) * (j == y)
            else:
                mass = 1 - epsilon if j == y else epsilon / (V - 1)
            smoothed = smoothed - mass * torch.log(p[j])
        student, teacher = softmax(list(row), temperature), softmax(list(taught), temperature)
        kl = row.new_zeros(())
        for q, s in zip(teacher, student, strict=True):
            kl = kl + q * (torch.log(q) - torch.log(s))
        loss = loss + (1 - share) * smoothed + share * temperature**2 * kl
        nll -= math.log(p[y].item())
        divergence += kl.item()
    return loss, nll, divergence
