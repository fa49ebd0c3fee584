"""Updates of 16-bit weights as fairseq's trainer makes them, without a model."""

from typing import Any

import torch
from torch import Tensor, nn

#: Of the weights; the second gets no gradient.
SHAPES = [(3, 4), (5,), (1,), (2, 3, 2), (7,)]


def build_optimizer(
    cfg: Any, weights: list[nn.Parameter] | None = None
) -> tuple[Any, list[nn.Parameter]]:
    """The optimizer of a training with these options over bfloat16 or float16 weights, by default new
    ones of `SHAPES`."""
    from fairseq.optim.fp16_optimizer import FP16Optimizer

    if weights is None:
        generator = torch.Generator().manual_seed(0)
        dtype = torch.bfloat16 if cfg.common.bf16 else torch.float16
        weights = [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES]
    return FP16Optimizer.build_optimizer(cfg, weights), weights


def update(optimizer: Any, weights: list[nn.Parameter], seed: int) -> list[Tensor]:
    """One update with random gradients; norm and new weights."""
    generator = torch.Generator().manual_seed(seed)
    for number, weight in enumerate(weights):
        missing = number == 1 or not weight.requires_grad
        grad = torch.randn(weight.shape, generator=generator)
        weight.grad = None if missing else grad.to(weight.dtype)
    optimizer._needs_sync = True
    optimizer.multiply_grads(0.25)
    norm = optimizer.clip_grad_norm(0.5)
    optimizer.step()
    optimizer.zero_grad()
    return [norm, *(weight.detach().clone() for weight in weights)]
