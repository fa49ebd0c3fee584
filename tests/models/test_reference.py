"""`admin_transformer` equals a float64 Transformer written from the papers, and fairseq's own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from admin_nmt.modules.multihead_attention import split_projections
from tests.reference import transformer as reference
from tests.support.models import random_omegas, randomise, stock_state


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_logits_equal_the_float64_reference(
    build: Callable[..., Any], batch: dict[str, Any], seed: int
) -> None:
    model = build("--share-all-embeddings", seed=seed).eval()
    randomise(model, seed)
    omegas = random_omegas(model, seed)
    net_input = batch["net_input"]
    with torch.no_grad():
        logits = model(**net_input)[0]
    pad = model.encoder.padding_idx

    def residual(name: str, shortcut: Tensor, branch: Tensor) -> Tensor:
        return omegas.get(name, torch.ones(())) * shortcut + branch

    for row in range(0, 16, 5):
        source = [t for t in net_input["src_tokens"][row].tolist() if t != pad]
        target = [t for t in net_input["prev_output_tokens"][row].tolist() if t != pad]
        expected = reference.forward(stock_state(model), source, target, 4, (2, 2), pad, residual)
        torch.testing.assert_close(
            logits[row, : len(target)].double(), expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--share-all-embeddings",),
        ("--share-decoder-input-output-embed", "--layernorm-embedding"),
        ("--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "24"),
        ("--max-source-positions", "64", "--encoder-learned-pos", "--activation-fn", "gelu"),
        ("--init-type", "default", "--encoder-normalize-before", "--decoder-normalize-before"),
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_omega_one_is_fairseqs_transformer(
    build: Callable[..., Any], batch: dict[str, Any], options: tuple[str, ...]
) -> None:
    sizes = "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 32 --decoder-embed-dim 32"
    sizes += " --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64"
    sizes += " --encoder-attention-heads 4 --decoder-attention-heads 4"
    ours = build(*sizes.split(), *options).eval()
    stock_options = [o for o in options if o not in ("--init-type", "default")]
    stock = build("--arch", "transformer", *sizes.split(), *stock_options, seed=2).eval()
    randomise(stock, 3)
    ours.load_state_dict({k: v.clone() for k, v in stock.state_dict().items()})
    assert ours.omegas_ready
    ours_logits, ours_extra = ours(**batch["net_input"])
    stock_logits, stock_extra = stock(**batch["net_input"])
    torch.testing.assert_close(ours_logits, stock_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours_extra["attn"][0], stock_extra["attn"][0], rtol=0, atol=1e-6)
    # And back: what we save under fairseq's names is what fairseq saved.
    returned = stock_state(ours)
    for name, value in stock.state_dict().items():
        if not name.endswith("_float_tensor"):
            torch.testing.assert_close(returned[name], value, rtol=0, atol=0)


def test_gradients_are_those_of_fairseqs_transformer(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    sizes = "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 32 --decoder-embed-dim 32"
    sizes += " --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64"
    sizes += " --encoder-attention-heads 4 --decoder-attention-heads 4"
    sizes += " --dropout 0 --share-all-embeddings"
    ours = build(*sizes.split()).train()
    stock = build("--arch", "transformer", *sizes.split(), seed=2).train()
    ours.load_state_dict({k: v.clone() for k, v in stock.state_dict().items()})
    for model in (ours, stock):
        logits = model(**batch["net_input"])[0]
        (logits.square().sum() / 1000).backward()
    gradients = {n: p.grad for n, p in ours.named_parameters() if not n.endswith(".omega")}
    for side, attentions in (
        ("encoder", ["self_attn"]),
        ("decoder", ["self_attn", "encoder_attn"]),
    ):
        for number in range(2):
            for name in attentions:
                split_projections(gradients, f"{side}.layers.{number}.{name}", name == "self_attn")
    for name, parameter in stock.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)
