"""`--compile` changes how the layers train, and nothing else."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from admin_nmt.errors import UsageError
from admin_nmt.modules.compiled import compile_layers
from admin_nmt.modules.walk import all_layers


def run(model: Any, net_input: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss without dropout, and all gradients."""
    model.train()
    model.zero_grad()
    loss = model(**net_input)[0].float().logsumexp(-1).square().mean()
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_equal_losses_and_gradients_of_any_size_with_one_compilation_for_all_layers(
    build: Callable[..., Any], batch: dict[str, Any]
) -> None:
    options = ("--encoder-layers", "3", "--decoder-layers", "1", "--init-type", "default")
    model = build(*options, "--dropout", "0")
    plain = copy.deepcopy(model)
    torch._dynamo.utils.counters.clear()
    counter = CompileCounterWithBackend("aot_eager")
    for stack in (model.encoder, model.decoder):
        compile_layers(all_layers(stack.layers), counter)
    assert model.state_dict().keys() == plain.state_dict().keys()
    wide = batch["net_input"]
    narrow = {name: value[2:12] for name, value in wide.items()}
    for net_input in (wide, narrow):
        (loss, gradients), (expected, exact) = run(model, net_input), run(plain, net_input)
        torch.testing.assert_close(loss, expected)
        assert gradients.keys() == exact.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, exact[name], rtol=1e-4, atol=1e-6)
    # One for all encoder layers, one for the decoder layer.
    frames = counter.frame_count
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    copied = copy.deepcopy(model)
    assert all_layers(copied.encoder.layers)[0].forward.__self__ is not model.encoder.layers[0]
    model.eval()
    torch.testing.assert_close(model(**wide)[0], plain.eval()(**wide)[0])
    assert counter.frame_count == frames  # nothing is compiled outside training


@pytest.mark.parametrize(
    "other",
    [
        ("--residual-attention", "all"),
        ("--checkpoint-activations",),
        ("--fused-residual-norm",),
        ("--head-mask", "E:1:1"),
    ],
)
def test_what_it_cannot_serve_is_refused_by_name(
    build: Callable[..., Any], other: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match=f"--compile is not supported with {other[0]}"):
        build("--compile", *other)


def test_the_trainer_compiles_after_the_profile(
    parse: Callable[..., Any], task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairseq.trainer import Trainer

    compiled: list[int] = []
    monkeypatch.setattr(
        "admin_nmt.modules.compiled.compile_layers", lambda layers: compiled.append(len(layers))
    )
    for options, expected in ((["--compile"], [2, 2]), ([], [])):
        cfg = parse("--no-save", *options)
        model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
        trainer = Trainer(cfg, task, model, criterion)
        trainer.get_train_iterator(epoch=1)
        assert model.omegas_ready and compiled == []
        assert trainer.optimizer is not None
        assert compiled == expected
        compiled.clear()
