"""What a layer keeps for the backward, counted: no more than its arithmetic needs.

In units of the layer's input, (T, B, D), with F = 4 D and heads of the whole width: self-attention
keeps its input, queries, keys, values and what the heads read; the FFN its input, and the output of
its activation; each LayerNorm the sum that it normalised. Dropout keeps a byte an element.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support.memory import kept_for_backward, num_bytes

T, B, D = 32, 8, 64
#: Units: x, qkv, read, sum; x, 4 hidden, sum.
ENCODER = 1 + 3 + 1 + 1 + 1 + 4 + 1
#: The same with encoder-decoder attention between: x, q, keys and values, read, sum.
DECODER = ENCODER + 1 + 1 + 2 + 1 + 1
#: Vectors of LayerNorms and logsumexp of attention.
SMALL = 0.3


def units(build: Callable[..., Any], stack: str, *options: str) -> float:
    """What the first layer of a stack keeps of a training step in float32."""
    model = build(
        "--encoder-embed-dim", str(D), "--encoder-ffn-embed-dim", str(4 * D), "--attention-dropout",
        "0", *options,
    ).train()  # fmt: skip
    layer = getattr(model, stack).layers[0]
    x, encoder_out = (torch.randn(T, B, D, requires_grad=True) for _ in range(2))
    arguments = (x, None) if stack == "encoder" else (x, encoder_out)
    own = [*layer.parameters(), encoder_out]  # the latter is there once for all layers
    _, kept = kept_for_backward(lambda: layer(*arguments), own)
    return num_bytes(kept) / (T * B * D * 4)


@pytest.mark.parametrize(("stack", "expected"), [("encoder", ENCODER), ("decoder", DECODER)])
def test_a_layer_keeps_what_it_needs(build: Callable[..., Any], stack: str, expected: int) -> None:
    without = ("--dropout", "0", "--activation-dropout", "0")
    assert units(build, stack, *without) == pytest.approx(expected, abs=SMALL)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_dropout_of_the_activation_keeps_nothing_more(
    build: Callable[..., Any], stack: str
) -> None:
    options = ("--dropout", "0", "--activation-dropout")
    assert units(build, stack, *options, "0.1") == units(build, stack, *options, "0")


@pytest.mark.parametrize(("stack", "sublayers"), [("encoder", 2), ("decoder", 3)])
def test_dropout_keeps_a_byte_an_element(
    build: Callable[..., Any], stack: str, sublayers: int
) -> None:
    more = units(build, stack, "--dropout", "0.1") - units(build, stack, "--dropout", "0")
    assert more == pytest.approx(sublayers / 4)
