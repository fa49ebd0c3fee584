"""The share of an encoder's output that differs by position.

In a deep post-LN encoder self-attention is nearly uniform at the start and adds the same vector to all
positions of a sentence, so the contribution of a token's own embedding shrinks from layer to layer
("rank collapse", Dong et al. 2021, arXiv 2103.03404). Where nothing of it is left, the decoder has nothing
to attend to, and the training loss stays at that of a language model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor


def within_and_total(states: Tensor, padding_mask: Tensor | None) -> tuple[float, float]:
    """Sums over sentences of the two moments whose ratio is the share.

    Args:
        states: encoder output, (S, B, D).
        padding_mask: (B, S), true at padding; None where there is none.

    Returns:
        the mean square of `state - mean over the sentence's positions`, and of `state`; both are
        means over positions and features, summed over the B sentences.
    """
    states = states.double().transpose(0, 1)
    real = torch.ones_like(states[..., :1])
    if padding_mask is not None:
        real = (~padding_mask.to(torch.bool)).unsqueeze(2).to(states)
    counts = real.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1, 1)
    center = (states * real).sum(dim=1, keepdim=True) / counts

    def mean_square(x: Tensor) -> float:
        return ((x.square() * real).sum(dim=1, keepdim=True) / counts).mean(dim=2).sum().item()

    return mean_square(states - center), mean_square(states)


class PositionShare:
    """The share of the encoder output that differs by position, over all batches seen.

    0: all positions of a sentence look alike; 1: their mean is zero in every sentence.
    """

    def __init__(self) -> None:
        self.within = self.total = 0.0

    def add(self, states: Tensor, padding_mask: Tensor | None) -> None:
        """Count a batch: encoder output (S, B, D) and mask (B, S) or None."""
        within, total = within_and_total(states, padding_mask)
        self.within += within
        self.total += total

    @property
    def value(self) -> float:
        """The share; NaN before the first batch."""
        return self.within / self.total if self.total else float("nan")

    @contextmanager
    def watching(self, encoder: Any) -> Iterator[None]:
        """Count every batch that `encoder`, a fairseq Transformer encoder, encodes."""

        def count(module: Any, args: Any, output: dict[str, list[Tensor]]) -> None:
            mask = output["encoder_padding_mask"]
            self.add(output["encoder_out"][0].detach(), mask[0] if mask else None)

        handle = encoder.register_forward_hook(count)
        try:
            yield
        finally:
            handle.remove()


def share_on(model: Any, task: Any, subset: str, num_sentences: int = 100) -> float:
    """The share on the first sentences of a data set that the model can read, without dropout.

    Args:
        model: a fairseq Transformer with an encoder; left in evaluation mode.
        task: fairseq's translation task with `subset` loaded.
        subset: of the data.
        num_sentences: how many, in one batch.
    """
    dataset = task.dataset(subset)
    encoder, share = model.eval().encoder, PositionShare()
    fits = (i for i in range(len(dataset)) if dataset.src_sizes[i] <= encoder.max_positions())
    batch = dataset.collater([dataset[i] for i in islice(fits, num_sentences)])
    with torch.no_grad(), share.watching(encoder):
        encoder(batch["net_input"]["src_tokens"], batch["net_input"]["src_lengths"])
    return share.value
