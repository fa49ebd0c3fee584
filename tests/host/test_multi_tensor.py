"""Multi-tensor operations around the update give fairseq's own numbers, in fewer operations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from admin_nmt.host import multi_tensor
from tests.support.updates import SHAPES, update


def optimizer_of(
    cfg: Any, dtype: torch.dtype, flat: bool, monkeypatch: pytest.MonkeyPatch, copies: int = 1
) -> tuple[Any, list[nn.Parameter]]:
    """fairseq's optimizer for 16-bit weights over random parameters, one of them frozen."""
    from fairseq import optim
    from fairseq.optim.fp16_optimizer import FP16Optimizer

    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES * copies]
    weights[2].requires_grad_(flat)  # a flat copy has no place for weights that are not trained
    # The flat copy is made for a CUDA device; the index of the CPU is None.
    monkeypatch.setattr(torch.cuda, "current_device", lambda: None)
    masters = FP16Optimizer.build_fp32_params(cfg.optimizer, weights, flatten=flat)
    inner = optim.build_optimizer(cfg.optimizer, [masters] if flat else masters)
    return FP16Optimizer(cfg, weights, inner, masters), weights


@pytest.mark.parametrize("freed", [False, True], ids=["cleared", "freed"])
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "one by one"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_updates_equal_fairseqs(
    parse: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    flat: bool,
    freed: bool,
) -> None:
    """`freed`: gradients of float32 weights do not outlive the update, as on a GPU."""
    monkeypatch.setattr(multi_tensor, "_freed", lambda master: freed)
    cfg = parse(f"--{precision}")
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    stock, theirs = optimizer_of(cfg, dtype, flat, monkeypatch)
    served, ours = optimizer_of(cfg, dtype, flat, monkeypatch)
    multi_tensor.serve(served)
    for seed in range(7):  # beyond the first steps, which RAdam does not rectify
        expected, found = update(stock, theirs, seed), update(served, ours, seed)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6 * (not one.dim()), atol=0)
    assert all(weight.grad is None for weight in ours)
    gradients = [p.grad for p in served.fp32_optimizer.params if p.grad is not None]
    assert bool(gradients) == (not freed)
    assert not any(gradient.any() for gradient in gradients)


def test_a_gradient_that_was_never_there_is_zero(
    parse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, weights = optimizer_of(parse("--bf16"), torch.bfloat16, False, monkeypatch)
    multi_tensor.serve(served)
    for master in served.fp32_params:
        master.grad = None
    weights[0].grad = torch.ones_like(weights[0])
    served._needs_sync = True
    served._sync_fp16_grads_to_fp32()
    assert served.fp32_params[0].grad.eq(1).all()
    assert not served.fp32_params[1].grad.any()


def test_a_new_gradient_of_the_flat_copy_is_the_one_that_is_filled(
    parse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, weights = optimizer_of(parse("--bf16"), torch.bfloat16, True, monkeypatch)
    multi_tensor.serve(served)
    (flat,) = served.fp32_params.values()
    for number in (1, 2, 3):
        for weight in weights:
            weight.grad = torch.full_like(weight, number)
        served._needs_sync = True
        served._sync_fp16_grads_to_fp32()
        assert flat.grad.eq(number).all()
        flat.grad = torch.zeros_like(flat)  # as somebody else may give it one


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("max_norm", [0.0, 1.0, 1e9])
def test_norm_and_clipping_without_a_float32_copy_are_fairseqs(
    parse: Callable[..., Any], dtype: torch.dtype, max_norm: float
) -> None:
    """Float32 weights, and 16-bit ones without a copy, whose norm is beyond float16's range; with
    what ranks make of the norm together."""
    from fairseq import optim

    found = []
    for served in (False, True):
        generator = torch.Generator().manual_seed(0)
        weights = [nn.Parameter(torch.zeros(s, dtype=dtype)) for s in ((300, 300), (5,))]
        optimizer = optim.build_optimizer(parse("--optimizer", "adam").optimizer, weights)
        if served:
            multi_tensor.serve(optimizer)
        for weight in weights:
            weight.grad = (300 * torch.randn(weight.shape, generator=generator)).to(dtype)
        norm = optimizer.clip_grad_norm(max_norm, lambda norm: 2 * norm)
        found.append([norm, *(weight.grad for weight in weights)])
    assert found[0][0] > 1e5
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-6)  # float16's rounding


def test_gradients_of_several_types_and_experts_are_left_to_fairseq(
    parse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairseq import optim

    def refused(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(multi_tensor, "clip_gradients", refused)
    weights = [nn.Parameter(torch.zeros(3, dtype=d)) for d in (torch.float32, torch.bfloat16)]
    optimizer = optim.build_optimizer(parse("--optimizer", "adam").optimizer, weights)
    multi_tensor.serve(optimizer)
    optimizer.clip_grad_norm(1.0)  # no gradient at all
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    assert optimizer.clip_grad_norm(0.0).item() == pytest.approx(6**0.5)
    weights[1].grad = None
    weights[1].expert = True  # type: ignore[attr-defined]
    experts = optim.build_optimizer(parse("--optimizer", "adam").optimizer, weights)
    multi_tensor.serve(experts)
    assert experts.clip_grad_norm(0.0).item() == pytest.approx(3**0.5)


def test_the_norm_of_many_numbers_is_exact(parse: Callable[..., Any]) -> None:
    """Added up in float32 one after the other, 10 million squares lose 4e-4 of their norm."""
    from fairseq import optim

    weight = nn.Parameter(torch.zeros(10_000_000))
    optimizer = optim.build_optimizer(parse().optimizer, [weight])
    multi_tensor.serve(optimizer)
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    expected = weight.grad.double().norm()
    torch.testing.assert_close(optimizer.clip_grad_norm(0).double(), expected, rtol=2e-6, atol=0)


class Count(TorchDispatchMode):
    """Counts operations."""

    number = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        views = ("detach", "view", "split", "slice", "alias", "split_with_sizes")
        self.number += function.overloadpacket.__name__ not in views
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "one by one"])
def test_operations_do_not_grow_with_the_depth(
    parse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, flat: bool
) -> None:
    counts = []
    for copies in (1, 5):
        served, weights = optimizer_of(parse("--bf16"), torch.bfloat16, flat, monkeypatch, copies)
        multi_tensor.serve(served)
        for weight in weights:
            weight.grad = torch.ones_like(weight) if weight.requires_grad else None
        served._needs_sync = True
        with Count() as count:
            served._sync_fp16_grads_to_fp32()
            served.clip_grad_norm(0.5)
            served._sync_fp32_params_to_fp16()
            served.zero_grad()
        counts.append(count.number)
    assert counts[0] == counts[1] < 20


def test_only_trainings_of_our_models_are_served(parse: Callable[..., Any], task: Any) -> None:
    from fairseq.trainer import Trainer

    served = []
    for options in (["admin_transformer_tiny", "--init-type", "default"], ["transformer_tiny"]):
        cfg = parse("--bf16", "--arch", *options)
        model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
        served.append("zero_grad" in vars(Trainer(cfg, task, model, criterion).optimizer))
    assert served == [True, False]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_update_that_is_left_out_does_not_scale_the_next_one(
    parse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Left out after `multiply_grads` and `clip_grad_norm`, as where a rank lacks memory."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    found = []
    for leave_out in (False, True):
        served, weights = optimizer_of(parse(f"--{precision}"), dtype, False, monkeypatch)
        multi_tensor.serve(served)
        served.zero_grad()  # as every update of the trainer begins
        if leave_out:
            for weight in weights:
                weight.grad = torch.ones_like(weight) if weight.requires_grad else None
            served._needs_sync = True
            served.multiply_grads(1e-4)
            served.clip_grad_norm(1.0)
            served.zero_grad()
        found.append(update(served, weights, seed=1))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_bmuf_keeps_its_own_norm(
    parse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fairseq.optim.bmuf import FairseqBMUF

    cfg = parse("--bf16", "--use-bmuf")
    inner, _ = optimizer_of(cfg, torch.bfloat16, False, monkeypatch)
    around = FairseqBMUF(cfg.bmuf, inner)
    multi_tensor.serve(around)
    assert "clip_grad_norm" not in vars(around)
