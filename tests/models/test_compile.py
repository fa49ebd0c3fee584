"""`--compile` changes how the layers train, and nothing else."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from admin_nmt.errors import UsageError
from admin_nmt.modules.compiled import compile_layers
from admin_nmt.modules.walk import all_layers
from tests.support.training import run_training

pytestmark = pytest.mark.xdist_group("compile")  # what one worker has compiled serves all tests
#: Layers with omegas.
OPTIONS = (
    "--encoder-layers", "3", "--decoder-layers", "1", "--init-type", "admin-log", "--dropout", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def backend() -> CompileCounterWithBackend:
    """One for all tests: what is compiled for one of them serves the next."""
    return CompileCounterWithBackend("aot_eager")


def run(
    model: Any, net_input: dict[str, Any], seed: int = 0
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss without dropout, and all gradients; `seed` is that of layer drop."""
    torch.manual_seed(seed)
    model.train()
    model.zero_grad()
    loss = model(**net_input)[0].float().logsumexp(-1).square().mean()
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def require_same(model: Any, plain: Any, net_input: dict[str, Any], seed: int = 0) -> None:
    """Both have the same loss and the same gradients."""
    (loss, gradients), (expected, exact) = run(model, net_input, seed), run(plain, net_input, seed)
    torch.testing.assert_close(loss, expected)
    assert gradients.keys() == exact.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, exact[name], rtol=1e-4, atol=1e-6)


def test_equal_losses_and_gradients_of_any_size_with_one_compilation_for_all_layers(
    build: Callable[..., Any], batch: dict[str, Any], backend: CompileCounterWithBackend
) -> None:
    torch._dynamo.reset()  # what another test has compiled is compiled again
    torch._dynamo.utils.counters.clear()
    model = build(*OPTIONS)
    plain = copy.deepcopy(model)
    for stack in (model.encoder, model.decoder):
        compile_layers(all_layers(stack.layers), backend)
    assert model.state_dict().keys() == plain.state_dict().keys()
    wide = batch["net_input"]
    narrow = {name: value[2:12] for name, value in wide.items()}
    for net_input in (wide, narrow):
        require_same(model, plain, net_input)
    # The first encoder layer, which has one omega less, the other two, the decoder layer.
    frames = backend.frame_count
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3
    copied = copy.deepcopy(model)
    assert all_layers(copied.encoder.layers)[0].forward.__self__ is not model.encoder.layers[0]
    model.eval()
    torch.testing.assert_close(model(**wide)[0], plain.eval()(**wide)[0])
    assert backend.frame_count == frames  # nothing is compiled outside training


@pytest.mark.long
def test_layers_are_dropped_as_without(
    build: Callable[..., Any], batch: dict[str, Any], backend: CompileCounterWithBackend
) -> None:
    model = build(*OPTIONS, "--encoder-layerdrop", "0.5")
    plain = copy.deepcopy(model)
    compile_layers(all_layers(model.encoder.layers), backend)
    for seed in range(3):
        require_same(model, plain, batch["net_input"], seed)


def test_layers_in_a_model_that_ddp_wraps(
    build: Callable[..., Any],
    batch: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch splits what is compiled at the boundaries of DDP's buckets, here several in a layer."""
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    model = build(*OPTIONS, "--encoder-layers", "1")
    plain = copy.deepcopy(model)
    backend = CompileCounterWithBackend("aot_eager")
    compile_layers(all_layers(model.encoder.layers), backend)
    monkeypatch.setattr(distributed, "_DEFAULT_FIRST_BUCKET_BYTES", 8000)
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model, bucket_cap_mb=0.01, find_unused_parameters=True)
        loss, gradients = run(wrapped, batch["net_input"])
        assert backend.frame_count > 1
    finally:
        distributed.destroy_process_group()
    expected, exact = run(plain, batch["net_input"])
    torch.testing.assert_close(loss, expected)
    for name, gradient in exact.items():
        torch.testing.assert_close(gradients[f"module.{name}"], gradient, rtol=1e-4, atol=1e-6)


def test_checkpoints_go_on_with_or_without_it(
    parse: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: CompileCounterWithBackend,
) -> None:
    """Four updates of R-Drop, which doubles the batches."""
    in_place = partial(compile_layers, backend=backend)
    monkeypatch.setattr("admin_nmt.modules.compiled.compile_layers", in_place)
    # Padding everywhere, as in `batch`: layers without a mask would be compiled beside those with one.
    options = (*OPTIONS, "--required-seq-len-multiple", "16")
    options += ("--criterion", "label_smoothed_cross_entropy_rdrop")
    train = partial(run_training, parse)
    found = {}
    for name, runs in {
        "plain": [("4",)],
        "compiled": [("2", "--compile"), ("4",)],
        "later": [("2",), ("4", "--compile")],
    }.items():
        for given in runs:
            last = train(tmp_path / name, *options, "--max-update", *given)
        found[name] = last["model"]
        assert last["optimizer_history"][-1]["num_updates"] == 4
    for name in ("compiled", "later"):
        assert found[name].keys() == found["plain"].keys()
        for key, value in found["plain"].items():
            torch.testing.assert_close(found[name][key], value, rtol=1e-3, atol=1e-5)


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
