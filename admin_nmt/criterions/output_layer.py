"""Computing a loss inside a model's forward pass, in place of its output layer.

The fused loss needs the decoder's features and the weight of its output layer. It is computed where
the decoder would have projected to the vocabulary, so that whatever wraps the model (DDP, FSDP)
sees the weight used inside the forward pass.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from admin_nmt.errors import UsageError

#: Number of random features, and of one-hot ones, with which an output layer is tested for linearity.
_PROBES = 3


def decoder_of(model: Any) -> Any:
    """The decoder of a fairseq model, whatever wraps it.

    Raises:
        UsageError: the model has none.
    """
    while hasattr(model, "module"):
        model = model.module
    decoder = getattr(model, "decoder", None)
    if decoder is None or not hasattr(decoder, "output_layer"):
        raise UsageError(
            f"--criterion: {type(model).__name__} has no decoder that predicts tokens; this "
            "criterion is for sequence-to-sequence and left-to-right language models"
        )
    return decoder


@torch.no_grad()
def linear_output_layer(decoder: Any) -> nn.Module | None:
    """The submodule of `decoder` whose weight and bias are its output layer, if that is linear.

    It is found by trying the usual candidates on random features: nothing is assumed of names or
    classes, and a layer that does more than one matrix product is not taken for one that does. Features
    with a single 1 read off single weights: a sum of many would hide that they are quantised
    (fairseq's `--quant-noise-scalar`).
    """
    if getattr(decoder, "adaptive_softmax", None) is not None:
        return None
    generator = torch.Generator().manual_seed(0)  # the training's random numbers stay as they are
    for name in ("output_projection", "fc_out", "embed_tokens"):
        candidate = getattr(decoder, name, None)
        weight = getattr(candidate, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() != 2:
            continue
        D = weight.shape[1]
        random = torch.rand((_PROBES, D), generator=generator) - 0.5
        columns = torch.linspace(0, D - 1, _PROBES).long()
        features = torch.cat([random, F.one_hot(columns, D)])[None].to(weight)
        try:
            found = decoder.output_layer(features)
        except (RuntimeError, TypeError, AttributeError):
            continue
        bias = getattr(candidate, "bias", None)
        expected = F.linear(features, weight, bias)
        if torch.is_tensor(found) and found.shape == expected.shape:
            error = (found - expected)[0].abs()
            # As much as rounding to 16 bits explains: of the largest logit, and of single weights.
            weights = weight[:, columns.to(weight.device)].t().abs()
            single = weights if bias is None else weights + bias.abs()
            largest = expected[0, :_PROBES].abs().max()
            allowed = torch.cat([largest.expand_as(single), single]) * 1e-2
            if (error <= allowed).all():
                return candidate
    return None


def log_probabilities(model: Any, net_output: Any) -> Tensor:
    """Log-probabilities (..., V) of what a model returned, differentiable also for an adaptive
    softmax (fairseq's own function for that writes into tensors that the backward needs)."""
    adaptive = getattr(decoder_of(model), "adaptive_softmax", None)
    if adaptive is None:
        return model.get_normalized_probs(net_output, log_probs=True)
    features = net_output[0].flatten(0, -2)  # a head tied to adaptive input gives rows in any case
    head = torch.log_softmax(adaptive.head(features).float(), dim=-1)
    shortlist = adaptive.cutoff[0]
    parts = [head[..., :shortlist]]
    for cluster, tail in enumerate(adaptive.tail):
        prior = head[..., shortlist + cluster, None]
        parts.append(torch.log_softmax(tail(features).float(), dim=-1) + prior)
    return torch.cat(parts, dim=-1).unflatten(0, net_output[0].shape[:-1])


@contextmanager
def replaced_output_layer(decoder: Any, function: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the context `decoder.output_layer(features)` is `function(features)`."""
    decoder.output_layer = function
    try:
        yield
    finally:
        del decoder.output_layer
