"""Measuring the importance of all heads with one forward and one backward pass over the data.

Only the gates on heads need gradients, the parameters do not: the backward pass costs about half of
that of training.
"""

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from admin_nmt.errors import UsageError, UserError, require_at_least_one
from admin_nmt.evaluation.batches import random_batches, rank_and_count
from admin_nmt.models.heads import attentions
from admin_nmt.modules.attention_kinds import by_queries
from admin_nmt.progress import progress
from admin_nmt.pruning.importance import GRANULARITIES, num_examples, summed_importance
from admin_nmt.pruning.loading import LoadedModel
from admin_nmt.pruning.records import Measurement

logger = logging.getLogger(__name__)

Gates = dict[tuple[str, int], Tensor]


@contextmanager
def gates_of_ones(model: Any, sizes: Mapping[str, tuple[int, int]]) -> Iterator[Gates]:
    """Gates of 1 at every query position of every head, which take gradients; removed at the end.

    Args:
        model: an `AdminTransformerModel`; heads that are masked stay so.
        sizes: kind -> (B, T) of its queries.

    Returns:
        (kind, layer) -> (B, H, T, 1), for layers that have heads.
    """
    gates: Gates = {}
    before = [(attention, attention.head_gate) for *_, attention in attentions(model)]
    device = next(model.parameters()).device
    try:
        for kind, layer, _, attention in attentions(model):
            if attention.num_heads == 0:
                continue
            B, T = sizes[kind]
            gate = torch.ones(B, attention.num_heads, T, 1, device=device, requires_grad=True)
            gates[kind, layer] = gate
            mask = attention.head_gate
            attention.head_gate = gate if mask is None else gate * mask[:, None, None]
        yield gates
    finally:
        for attention, gate_before in before:
            attention.head_gate = gate_before


def gate_gradients(model: Any, sample: Mapping[str, Any]) -> tuple[dict, dict[str, Tensor]]:
    """Gradients of the loss of one batch by the gates.

    The loss is cross-entropy (no label smoothing), summed over target tokens, so it does not matter
    which sentences share a batch.

    Returns:
        (kind, layer) -> (B, H, T), and kind -> (B, T) that is false at padding. Heads that the loss
        does not depend on (the encoder's, if nothing attends to it) have gradients of 0.
    """
    net_input = sample["net_input"]
    source = net_input["src_tokens"].ne(model.encoder.padding_idx)
    target = net_input["prev_output_tokens"].ne(model.decoder.padding_idx)
    visible = by_queries(source, target)
    sizes = {kind: tuple(mask.shape) for kind, mask in visible.items()}
    with torch.enable_grad(), gates_of_ones(model, sizes) as gates:  # type: ignore[arg-type]
        loss = _cross_entropy(model, model(**net_input)[0], sample["target"])
        inputs = list(gates.values())
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, inputs, materialize_grads=True)
        else:
            gradients = tuple(map(torch.zeros_like, inputs))
    return dict(zip(gates, (g.squeeze(3) for g in gradients), strict=True)), visible


def _cross_entropy(model: Any, output: Tensor, target: Tensor) -> Tensor:
    """Sum over target tokens of -log p.

    Args:
        model: its decoder's output layer may be an adaptive softmax.
        output: (B, T, V), or (B, T, D) before an adaptive softmax, which decoders leave to the loss.
        target: (B, T).
    """
    target = target.flatten()
    adaptive = model.decoder.adaptive_softmax
    if adaptive is None:
        scores, classes = [output.flatten(0, 1)], [target]
    else:  # the shortlist with one class for each cluster, and each cluster that has targets
        scores, classes = adaptive(output, target)
    # Padding is a word of the shortlist; in a cluster classes are counted anew.
    losses = [
        F.cross_entropy(rows.float(), of, ignore_index=-100 if cluster else model.decoder.padding_idx,
                        reduction="sum")
        for cluster, (rows, of) in enumerate(zip(scores, classes, strict=True))
        if of is not None
    ]  # fmt: skip
    return torch.stack(losses).sum()


class _Sums:
    """Running sums over batches: importance by layer, and numbers of examples by kind."""

    def __init__(self, layout: Mapping[str, tuple[int, ...]], granularity: str) -> None:
        self.granularity = granularity
        self.layers = {
            (kind, layer): torch.zeros(count, dtype=torch.float64)
            for kind, counts in layout.items()
            for layer, count in enumerate(counts, 1)
        }
        self.examples = {kind: torch.zeros(1, dtype=torch.float64) for kind in layout}

    def add(self, gradients: Mapping, visible: Mapping[str, Tensor]) -> None:
        """Add one batch."""
        for (kind, layer), gradient in gradients.items():
            total = summed_importance(gradient, visible[kind], self.granularity)
            self.layers[kind, layer] += total.cpu()
        for kind, count in self.examples.items():
            count += num_examples(visible[kind], self.granularity)

    def tensors(self) -> list[Tensor]:
        """All sums, to be added up over ranks in place."""
        return [*self.layers.values(), *self.examples.values()]

    def scores(self) -> dict[str, list[list[float]]]:
        """The means: kind -> layer -> head -> score."""
        scores: dict[str, list[list[float]]] = {kind: [] for kind in self.examples}
        for (kind, _), total in self.layers.items():
            scores[kind].append((total / self.examples[kind]).tolist())
        return scores


@dataclass(frozen=True)
class MeasuringOptions:
    """On what, how much of it, and by which definition importance is measured.

    Attributes:
        subset: of the data.
        granularity: `token` or `sentence`, see `importance`.
        max_tokens: of one batch.
        max_batches: number of batches, drawn at random; None is all.
        seed: of the draw.
    """

    subset: str = "train"
    granularity: str = "token"
    max_tokens: int = 4096
    max_batches: int | None = None
    seed: int = 1


def measure(options: MeasuringOptions, loaded: LoadedModel) -> Measurement:
    """Importance of every head over (part of) a subset.

    On several ranks (`several_ranks`) each takes its share of the batches, and all get the
    result.

    Args:
        options: on what, and how.
        loaded: the model; it is left as it was.

    Raises:
        UsageError: a number that makes no sense, or an unknown granularity.
        UserError: there is nothing to measure on, or a score is not finite.
    """
    if options.granularity not in GRANULARITIES:
        raise UsageError(
            f"--granularity {options.granularity}: choose from {', '.join(GRANULARITIES)}"
        )
    require_at_least_one("--max-tokens", options.max_tokens)
    require_at_least_one("--max-batches", options.max_batches)
    batches = random_batches(
        loaded.task, loaded.model, options.subset, options.max_tokens, options.seed,
        options.max_batches,
    )  # fmt: skip
    sums = _Sums(loaded.layout, options.granularity)
    with progress(logger, "measuring heads", "batches", total=len(batches)) as bar:
        for sample in batches:
            if sample:  # fairseq fills up the shares of ranks with empty batches
                sums.add(*gate_gradients(loaded.model, sample))
            bar.update()
    for tensor in sums.tensors():
        _add_up_over_ranks(tensor)
    if not all(sums.examples.values()):
        raise UserError(f"subset {options.subset} has no sentence to measure heads on")
    if not all(tensor.isfinite().all() for tensor in sums.tensors()):
        raise UserError(f"importance of {loaded.path} is not finite: its loss is NaN or infinite")
    num_examples = {kind: int(count) for kind, count in sums.examples.items()}
    settings = {**dataclasses.asdict(options), "num_examples": num_examples}
    return Measurement(loaded.path, loaded.fingerprint, loaded.layout, sums.scores(), settings)


def _add_up_over_ranks(tensor: Tensor) -> None:
    if rank_and_count()[1] > 1:
        torch.distributed.all_reduce(tensor)


@contextmanager
def several_ranks() -> Iterator[bool]:
    """Join the other processes if `torchrun` started this one; says whether this is rank 0."""
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        yield True
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # Sums are added up on the CPU: a few numbers per layer.
    torch.distributed.init_process_group("gloo")
    try:
        yield torch.distributed.get_rank() == 0
    finally:
        torch.distributed.destroy_process_group()
