"""`--fused-residual-norm` changes how a model computes, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from admin_nmt.modules import transformer_layer

MODELS = {
    "admin": (),
    "deepnorm": ("--init-type", "deepnorm"),
    "post-ln": ("--init-type", "default"),
    "pre-ln": (
        "--init-type", "default", "--encoder-normalize-before", "--decoder-normalize-before",
    ),
    "rezero": ("--init-type", "rezero"),
    "realformer": ("--residual-attention", "all"),
}  # fmt: skip


def run(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits with dropout, and all gradients."""
    model.train()
    model.zero_grad()
    torch.manual_seed(5)
    logits = model(**batch["net_input"])[0]
    logits.square().mean().backward()
    return logits, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", MODELS)
def test_same_function_same_dropout_same_keys(
    name: str, build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    plain = build(*MODELS[name])
    fused = build(*MODELS[name], "--fused-residual-norm")
    assert plain.state_dict().keys() == fused.state_dict().keys()
    fused.load_state_dict(plain.state_dict())
    expected, found = run(plain, batch), run(fused, batch)
    assert torch.equal(expected[0], found[0])
    assert expected[1].keys() == found[1].keys()
    for parameter, gradient in expected[1].items():
        assert torch.equal(gradient, found[1][parameter]), parameter


@pytest.mark.parametrize(("name", "expected"), [("admin", 10), ("pre-ln", 0), ("rezero", 0)])
def test_every_post_ln_sublayer_is_fused_unless_it_is_watched(
    name: str, expected: int, build: Callable[..., Any], batch: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    calls = []
    operation = transformer_layer.residual_norm

    def counted(*args: Any) -> torch.Tensor:
        calls.append(args)
        return operation(*args)

    monkeypatch.setattr(transformer_layer, "residual_norm", counted)
    model = build(*MODELS[name], "--fused-residual-norm")
    run(model, batch)
    assert len(calls) == expected
    calls.clear()
    residual = model.encoder.layers[0].ffn_residual if expected else None
    if residual is not None:
        seen = []
        residual.register_forward_pre_hook(lambda module, args: seen.append(args))
        run(model, batch)
        assert len(calls) == expected - 1 and len(seen) == 1
