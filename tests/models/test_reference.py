"""`admin_transformer` equals a float64 Transformer written from the papers, and fairseq's own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from admin_nmt.modules.multihead_attention import split_projections
from tests.reference import transformer as reference
from tests.support.exact import LENGTHS, WIDTHS, convert, padded_batch, sized
from tests.support.models import randomise, spread_omegas, stock_state


def split_attentions(tensors: dict[str, Tensor], layers: tuple[int, int]) -> None:
    """Fused projections under fairseq's names, in place."""
    for side, number, attentions in (
        ("encoder", layers[0], ["self_attn"]),
        ("decoder", layers[1], ["self_attn", "encoder_attn"]),
    ):
        for layer in range(number):
            for name in attentions:
                split_projections(tensors, f"{side}.layers.{layer}.{name}", name == "self_attn")


@pytest.fixture(scope="module")
def cfg(parse: Callable[..., Any]) -> Any:
    """Settings of a model without dropout."""
    return parse("--dropout", "0").model


EMBEDDINGS = [
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
]


@settings(deadline=None, max_examples=20)
@given(
    layers=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    width=WIDTHS,
    lengths=LENGTHS,
    sharing=st.sampled_from(["", "share_decoder_input_output_embed", "share_all_embeddings"]),
    carried=st.sampled_from(["none", "all", "encoder,cross"]),
    mean=st.booleans(),
    fused=st.booleans(),
    seed=st.integers(0, 99),
)
def test_logits_and_all_gradients_equal_the_float64_reference(
    cfg: Any,
    task: Any,
    layers: tuple[int, int],
    width: tuple[int, int],
    lengths: list[tuple[int, int]],
    sharing: str,
    carried: str,
    mean: bool,
    fused: bool,
    seed: int,
) -> None:
    """With omegas away from 1, whole padded batches, and RealFormer's scores carried or not."""
    cfg = sized(cfg, layers, *width)
    cfg.residual_attention, cfg.fused_residual_norm = carried, fused
    cfg.residual_attention_reduce = "mean" if mean else "sum"
    if sharing:
        setattr(cfg, sharing, True)
    torch.manual_seed(seed)
    model = convert(task.build_model(cfg), torch.float64).train()
    spread_omegas(model, randomise(model, seed), half_range=0.5)
    net_input = padded_batch(task.source_dictionary, lengths, seed)["net_input"]
    pad = task.source_dictionary.pad()
    leaves = {name: value.requires_grad_() for name, value in stock_state(model).items()}
    omegas = {
        name: residual.omega.detach().clone().requires_grad_()
        for name, residual in model.residuals()
        if hasattr(residual, "omega")
    }

    def residual(name: str, shortcut: Tensor, branch: Tensor) -> Tensor:
        return omegas.get(name, 1.0) * shortcut + branch

    words = {"none": [], "all": ["encoder", "decoder", "cross"]}.get(carried, carried.split(","))
    expected = reference.forward_batch(
        leaves, net_input["src_tokens"], net_input["prev_output_tokens"], width[1], layers, pad,
        residual, {word: reference.Chain(mean) for word in words},
    )  # fmt: skip
    logits = model(**net_input)[0]
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn(logits.shape, dtype=torch.float64)
    upstream[net_input["prev_output_tokens"] == pad] = 0
    (logits * upstream).sum().backward()
    (expected * upstream).sum().backward()

    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = {name: parameter.grad for name, parameter in parameters.items()}
    for name, omega in omegas.items():
        torch.testing.assert_close(found.pop(f"{name}.omega"), omega.grad, rtol=1e-8, atol=1e-9)
    split_attentions(found, layers)
    # An embedding used twice has the sum of both gradients.
    total: dict[str, Tensor] = {
        name: sum(
            leaves[other].grad for other in EMBEDDINGS if parameters[other] is parameters[name]
        )
        for name in EMBEDDINGS
    }
    trained = {name for name, leaf in leaves.items() if leaf.grad is not None}
    assert found.keys() == trained
    for name, gradient in found.items():
        wanted = total.get(name, leaves[name].grad)
        torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-9, msg=name)


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
    source = batch["net_input"]["src_tokens"], batch["net_input"]["src_lengths"]
    encoded, expected = (m.encoder(*source, return_all_hiddens=True) for m in (ours, stock))
    del encoded["fc_results"], expected["fc_results"]  # one None a layer in fairseq's
    torch.testing.assert_close(encoded, expected, rtol=0, atol=1e-5)
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
    split_attentions(gradients, (2, 2))
    for name, parameter in stock.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)
