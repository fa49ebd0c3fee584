"""Chunked projection and loss against the loops of the papers, and what it may allocate."""

from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from admin_nmt.ops import linear_loss, loss_chunk
from admin_nmt.ops.label_smoothing import CONVENTIONS, LabelSmoothing
from admin_nmt.ops.linear_loss import (
    default_chunk_tokens,
    linear_cross_entropy,
    linear_rdrop,
)
from admin_nmt.ops.rdrop import rdrop_loss, symmetric_kl
from tests.reference import rdrop as reference
from tests.support.losses import FUSED_LOSS
from tests.support.tensors import Largest

PAD = 1


def problem(
    m: int,
    shape: tuple[int, ...],
    D: int,
    V: int,
    seed: int = 0,
    device: str = "cpu",
    padding: float | None = None,
) -> list[Tensor]:
    """Features (m, *shape, D), weight, bias in float64, and targets of which every fourth, or this
    share at random, is padding."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    target = torch.randint(0, V, shape, generator=generator)
    if padding is None:
        target.view(-1)[::4] = PAD
    else:
        target[torch.rand(shape, generator=generator) < padding] = PAD
    return [x.to(device) for x in (normal(m, *shape, D), normal(V, D), normal(V), target)]


def leaves(*tensors: Tensor, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]


def by_loops(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    alpha: float,
    epsilon: float = 0.1,
    over: str = "others",
) -> tuple[Tensor, float, float, Tensor]:
    """Loss, nll and kl of the reference, and the logits (m, N, V)."""
    logits = (features @ weight.T + (0.0 if bias is None else bias)).flatten(1, -2)
    alpha = alpha if len(features) > 1 else 0.0
    loss, *rest = reference.objective(
        logits.cpu(), target.view(-1).tolist(), epsilon, over, alpha, PAD
    )
    return loss + 0.0 * logits.sum().cpu(), *rest, logits  # has a gradient without any token, too


@settings(deadline=None, max_examples=25)
@given(
    m=st.integers(1, 3),
    alpha=st.sampled_from([0.0, 3.0]),
    biased=st.booleans(),
    **FUSED_LOSS,
)
def test_equals_the_papers_written_as_loops(
    device: str,
    m: int,
    shape: tuple[int, ...],
    D: int,
    V: int,
    padding: float,
    chunk_tokens: int,
    over: str,
    epsilon: float,
    alpha: float,
    biased: bool,
    leaves_out: bool,
    seed: int,
) -> None:
    """Values and all gradients, padding left out as on a CPU and masked as on a GPU."""
    *inputs, target = problem(m, shape, D, V, seed, device, padding)
    inputs = inputs if biased else inputs[:2]
    ours, twin = leaves(*inputs), leaves(*inputs)
    smoothing = LabelSmoothing.of(epsilon, V, over)
    with mock.patch.object(linear_loss, "_leaves_out", lambda _: leaves_out):
        found = linear_rdrop(
            *ours, *([] if biased else [None]), target, smoothing, alpha, PAD, chunk_tokens, True
        )
    loss, nll, kl, logits = by_loops(
        *twin, *([] if biased else [None]), target, alpha, epsilon, over
    )
    assert found.loss.item() == pytest.approx(loss.item(), rel=1e-12)
    assert found.nll.item() == pytest.approx(nll, rel=1e-12)
    assert found.kl.item() == pytest.approx(kl, rel=1e-11)
    keep = target.view(-1) != PAD
    right = (logits.argmax(-1) == target.view(-1)) & keep
    assert found.correct is not None and found.correct.item() == right.sum().item()
    (0.7 * found.loss).backward()
    (0.7 * loss).backward()
    for mine, theirs in zip(ours, twin, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 2.5])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_gradcheck(m: int, alpha: float) -> None:
    features, weight, bias, target = problem(m, (5,), D=3, V=6, seed=1)
    smoothing = LabelSmoothing.of(0.1, 6)

    def loss(*inputs: Tensor) -> Tensor:
        return linear_rdrop(*inputs, target, smoothing, alpha, PAD, chunk_tokens=2).loss

    assert gradcheck(loss, tuple(leaves(features, weight, bias)))


def plain(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    alpha: float,
    smoothing: LabelSmoothing | None = None,
) -> Any:
    lprobs = torch.log_softmax(features.flatten(1, -2) @ weight.T + bias, dim=-1)
    smoothing = smoothing or LabelSmoothing.of(0.1, weight.shape[0])
    return rdrop_loss(lprobs, target.reshape(-1), smoothing, alpha, PAD)


@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)],
)
def test_lower_precision_stays_near_float64(
    device: str, m: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Products round in `dtype` (on a GPU the logits too), nothing else."""
    *inputs, target = problem(m, (3, 5), D=16, V=23, seed=2, device=device)
    rounded = [tensor.to(dtype).double() for tensor in inputs]
    ours, twin = leaves(*rounded, dtype=dtype), leaves(*rounded)
    found = linear_rdrop(*ours, target, LabelSmoothing.of(0.1, 23), 5.0, PAD, chunk_tokens=4)
    loss, nll, kl, _ = by_loops(*twin, target, 5.0)
    assert found.nll.item() == pytest.approx(nll, rel=tolerance)
    assert found.kl.item() == pytest.approx(kl, rel=tolerance)
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == pytest.approx(loss.item(), rel=tolerance)
    found.loss.backward()
    loss.backward()
    for mine, theirs in zip(ours, twin, strict=True):
        assert mine.grad is not None and theirs.grad is not None and mine.grad.dtype == dtype
        error = (mine.grad.double() - theirs.grad).abs().max() / theirs.grad.abs().max()
        assert error < tolerance


def test_weight_gradient_is_accumulated_in_float32(device: str) -> None:
    """4,000 equal contributions: a bfloat16 sum would stop growing after some 256 of them."""
    features = torch.ones(4000, 2, dtype=torch.bfloat16, device=device)
    weight = torch.zeros(4, 2, dtype=torch.bfloat16, device=device, requires_grad=True)
    target = torch.zeros(4000, dtype=torch.long, device=device)
    linear_cross_entropy(
        features, weight, None, target, LabelSmoothing.of(0.0, 4), chunk_tokens=1
    ).loss.backward()
    assert weight.grad is not None
    expected = torch.full((2,), -3000.0)
    torch.testing.assert_close(weight.grad[0].float().cpu(), expected, rtol=1e-2, atol=0)


def test_bias_gradient_is_summed_in_float32(device: str) -> None:
    """-750.75 has more digits than bfloat16."""
    like = {"dtype": torch.bfloat16, "device": device}
    bias = torch.zeros(4, device=device, requires_grad=True)
    target = torch.zeros(1001, dtype=torch.long, device=device)
    linear_cross_entropy(
        torch.ones(1001, 2, **like), torch.zeros(4, 2, **like), bias, target,
        LabelSmoothing.of(0.0, 4), chunk_tokens=1001,
    ).loss.backward()  # fmt: skip
    assert bias.grad is not None and bias.grad.tolist() == [-750.75, 250.25, 250.25, 250.25]


def test_a_loss_scale_beyond_float16_leaves_small_gradients_finite(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With float16 products, also on a CPU."""
    monkeypatch.setattr(loss_chunk, "_product_dtype", lambda features: torch.float16)
    features, weight, _, target = problem(1, (6,), D=4, V=9, device=device)
    (ours,) = leaves(features, dtype=torch.float16)
    small = (weight * 1e-4).half()
    loss = linear_rdrop(ours, small, None, target, LabelSmoothing.of(0.0, 9), 0.0, PAD).loss
    (loss * 2.0**21).backward()
    assert ours.grad is not None and ours.grad.isfinite().all() and ours.grad.abs().max() > 10


def test_logits_of_all_passes_share_a_chunk() -> None:
    for passes in (1, 2, 3):
        tokens = default_chunk_tokens(passes, 1000, "cpu", torch.float32)
        assert tokens == (1 << 22) // (passes * 1000)


def test_products_are_added_to_float32_unrounded_where_the_device_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GPUs can; here a stand-in for PyTorch's product does what it does there."""
    features, weight, _, target = problem(2, (12,), D=8, V=9, seed=2)
    found = {}
    for widens in (False, True):
        calls = []

        def addmm(total: Tensor, a: Tensor, b: Tensor, *, out_dtype: Any, out: Tensor) -> Tensor:
            calls.append((a.dtype, b.dtype, out_dtype))  # noqa: B023
            return out.copy_(total + a.to(out_dtype) @ b.to(out_dtype))

        with monkeypatch.context() as patch:
            if widens:
                patch.setattr(torch, "addmm", addmm)
            loss_chunk._adds_widened.cache_clear()
            (x,) = leaves(features, dtype=torch.bfloat16)
            (w,) = leaves(weight, dtype=torch.float32)
            smoothing = LabelSmoothing.of(0.1, 9)
            linear_rdrop(x, w, None, target, smoothing, 2.0, PAD, chunk_tokens=3).loss.backward()
        loss_chunk._adds_widened.cache_clear()
        assert w.grad is not None and w.grad.dtype == torch.float32
        found[widens] = w.grad
        # Once to see whether it can, then for three chunks of the nine tokens that are no padding.
        half = (torch.bfloat16, torch.bfloat16, torch.float32)
        assert calls == [half] * (4 if widens else 0)
    torch.testing.assert_close(found[True], found[False], rtol=1e-2, atol=1e-2)
    assert not torch.equal(found[True], found[False])  # the other has rounded


def test_float16_gradients_are_scaled_before_they_are_rounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With float16 products, as on a GPU: probabilities near 1e-6 have few digits in float16."""
    monkeypatch.setattr(loss_chunk, "_product_dtype", lambda features: torch.float16)
    features, weight, bias, target = problem(1, (6,), D=4, V=3000, seed=3)
    smoothing = LabelSmoothing.of(0.0, 3000)
    twin = leaves(*(tensor.half() for tensor in (features, weight, bias)))
    plain(*twin, target, 0.0, smoothing).loss.backward()
    expected = twin[1].grad
    assert expected is not None
    rare = (expected.abs() > 1e-8) & (expected.abs() < 1e-5)
    assert rare.sum() > 100
    errors = []
    for scale in (loss_chunk._FLOAT16_SCALE, 1.0):
        monkeypatch.setattr(loss_chunk, "_FLOAT16_SCALE", scale)
        ours = leaves(features, weight, bias, dtype=torch.float16)
        master = ours[1].detach().float().requires_grad_()  # its gradient keeps small numbers
        found = linear_rdrop(ours[0], master.half(), ours[2], target, smoothing, 0.0, PAD)
        (found.loss * 2.0**10).backward()
        assert master.grad is not None
        error = (master.grad.double() / 2.0**10 - expected).abs() / expected.abs()
        errors.append(error[rare].median().item())
    assert errors[0] < 0.25 * errors[1]


@pytest.mark.parametrize("passes", [1, 2, 3000])
@pytest.mark.parametrize("num_types", [100, 1000, 32000])
def test_float16_product_of_a_chunk_is_finite(device: str, passes: int, num_types: int) -> None:
    """Gradient of the weight where every token is the same type and features are 1. An infinite one
    would stop training for good: it does not depend on the loss scale."""
    tokens = default_chunk_tokens(passes, num_types, "cuda", torch.float16)
    assert 1 <= tokens <= default_chunk_tokens(passes, num_types, "cuda", torch.bfloat16)
    like = {"dtype": torch.float16, "device": device}
    gradient = torch.full((1, tokens * passes), -loss_chunk._FLOAT16_SCALE, **like)
    assert torch.isfinite(torch.mm(gradient, torch.ones(tokens * passes, 1, **like)))


def test_padding_contributes_nothing_whatever_it_holds(device: str) -> None:
    features, weight, bias, target = problem(2, (3, 4), D=3, V=5, device=device)
    features[:, target == PAD] = float("inf")
    ours = leaves(features, weight, bias)
    found = linear_rdrop(*ours, target, LabelSmoothing.of(0.1, 5), 1.0, PAD, chunk_tokens=2)
    found.loss.backward()
    assert torch.isfinite(found.loss)
    for tensor in ours:
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()
    assert ours[0].grad is not None and (ours[0].grad[:, target == PAD] == 0).all()


def test_only_padding_is_a_loss_of_zero(device: str) -> None:
    features, weight, bias, target = problem(2, (2, 3), D=3, V=5, device=device)
    ours = leaves(features, weight, bias)
    found = linear_rdrop(*ours, torch.full_like(target, PAD), LabelSmoothing.of(0.1, 5), 1.0, PAD)
    found.loss.backward()
    assert found.loss.item() == found.nll.item() == found.kl.item() == 0
    assert all(tensor.grad is not None and (tensor.grad == 0).all() for tensor in ours)


def test_a_weight_used_twice_gets_both_gradients() -> None:
    """Tied embeddings: the same parameter embeds the input and projects the output."""
    torch.manual_seed(0)
    tokens = torch.randint(0, 11, (9,))
    grads = []
    for fused in (True, False):
        torch.manual_seed(1)
        embedding = nn.Embedding(11, 4, dtype=torch.float64)
        features = embedding(tokens).tanh()[None]
        if fused:
            sums = linear_rdrop(
                features, embedding.weight, None, tokens, LabelSmoothing.of(0.1, 11), 0.0
            )
        else:
            sums = rdrop_loss(
                torch.log_softmax(features @ embedding.weight.T, -1),
                tokens, LabelSmoothing.of(0.1, 11), 0.0,
            )  # fmt: skip
        sums.loss.backward()
        grads.append(embedding.weight.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-14)


def test_backward_may_run_twice_and_gradients_add_up() -> None:
    ours = leaves(*problem(2, (4,), D=3, V=5)[:3])
    target = torch.tensor([0, 2, 3, 4])
    loss = linear_rdrop(*ours, target, LabelSmoothing.of(0.1, 5), 1.0).loss
    loss.backward(retain_graph=True)
    once = [tensor.grad.clone() for tensor in ours if tensor.grad is not None]
    loss.backward()
    for tensor, first in zip(ours, once, strict=True):
        torch.testing.assert_close(tensor.grad, 2 * first)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_each_input_may_be_frozen(wanted: int) -> None:
    features, weight, bias, target = problem(2, (6,), D=3, V=5)
    full = leaves(features, weight, bias)
    smoothing = LabelSmoothing.of(0.1, 5)
    linear_rdrop(*full, target, smoothing, 1.0, PAD).loss.backward()
    some = [t if i == wanted else t.detach() for i, t in enumerate(leaves(features, weight, bias))]
    linear_rdrop(*some, target, smoothing, 1.0, PAD).loss.backward()
    for i, tensor in enumerate(some):
        assert (tensor.grad is not None) == (i == wanted)
    torch.testing.assert_close(some[wanted].grad, full[wanted].grad)


def test_autocast_multiplies_in_low_precision_and_returns_full_gradients(device: str) -> None:
    features, weight, bias, target = problem(2, (6, 5), D=16, V=50, device=device)
    ours = leaves(features, weight, bias, dtype=torch.float32)
    with torch.autocast(device, dtype=torch.bfloat16):
        found = linear_rdrop(*ours, target, LabelSmoothing.of(0.1, 50), 2.0, PAD, chunk_tokens=7)
    found.loss.backward()
    # All but the products is computed as without autocast.
    rounded = [ours[0].bfloat16(), ours[1].bfloat16(), ours[2]]
    same = linear_rdrop(*rounded, target, LabelSmoothing.of(0.1, 50), 2.0, PAD, chunk_tokens=7)
    assert (found.loss, found.nll, found.kl) == (same.loss, same.nll, same.kl)
    weight_grad = ours[1].grad
    assert weight_grad is not None and not torch.equal(weight_grad, weight_grad.bfloat16().float())
    exact = leaves(features, weight, bias)
    loss, *_ = by_loops(*exact, target, 2.0)
    loss.backward()
    assert 0 < abs(found.loss.item() / loss.item() - 1) < 1e-2
    for mine, theirs in zip(ours, exact, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert mine.grad.dtype == torch.float32
        assert (mine.grad - theirs.grad).abs().max() < 3e-2 * theirs.grad.abs().max()


@pytest.mark.parametrize("m", [1, 2])
def test_no_tensor_is_larger_than_one_chunk_of_logits(m: int) -> None:
    N, D, V, chunk = 200, 4, 500, 10
    features, weight, bias, target = problem(m, (N,), D, V)
    ours = leaves(features, weight, bias)
    with Largest() as largest:
        linear_rdrop(
            *ours, target, LabelSmoothing.of(0.1, V), 1.0, PAD, chunk_tokens=chunk
        ).loss.backward()
    assert max(largest.sizes) == max(m * chunk * V, V * D)
    with Largest() as naive:
        plain(*leaves(features, weight, bias), target, 1.0).loss.backward()
    assert max(naive.sizes) >= m * N * V


def test_without_gradients_none_are_computed() -> None:
    features, weight, bias, target = problem(2, (6,), D=3, V=5)
    ours = leaves(features, weight, bias)
    smoothing = LabelSmoothing.of(0.1, 5)
    with torch.no_grad(), mock.patch.object(torch, "mm", side_effect=AssertionError):
        quiet = linear_rdrop(*ours, target, smoothing, 1.0, PAD)
    assert not quiet.loss.requires_grad
    loud = linear_rdrop(*ours, target, smoothing, 1.0, PAD)
    torch.testing.assert_close(quiet.loss, loud.loss.detach(), rtol=0, atol=0)
    # Logs keep nll and kl: with a gradient they would keep the graph of the batch.
    for sums in (loud, plain(*ours, target, 1.0)):
        assert sums.loss.requires_grad and not sums.nll.requires_grad and not sums.kl.requires_grad


def test_shapes_that_do_not_fit_are_refused() -> None:
    features, weight, bias, target = problem(1, (6,), D=3, V=5)
    with pytest.raises(ValueError, match="do not fit"):
        linear_cross_entropy(features, weight, bias, target, LabelSmoothing.of(0.1, 5))


def test_extreme_logits_give_finite_gradients(device: str) -> None:
    values = [[[80.0], [-80.0]], [[-80.0], [80.0]]], [[10.0], [-10.0], [0.0]]
    features, weight = (torch.tensor(v, device=device, requires_grad=True) for v in values)
    target = torch.tensor([1, 2], device=device)
    found = linear_rdrop(features, weight, None, target, LabelSmoothing.of(0.1, 3), 5.0)
    found.loss.backward()
    assert torch.isfinite(found.loss) and found.kl > 1000
    assert torch.isfinite(features.grad).all() and torch.isfinite(weight.grad).all()  # type: ignore[arg-type]


def test_conventions_of_label_smoothing_have_mass_one_and_differ() -> None:
    for over in CONVENTIONS:
        smoothing = LabelSmoothing.of(0.3, 10, over)
        assert smoothing.target + 10 * smoothing.each == pytest.approx(1)
    assert LabelSmoothing.of(0.3, 10, "others").each == pytest.approx(0.3 / 9)
    assert LabelSmoothing.of(0.3, 10, "all").each == pytest.approx(0.3 / 10)
    with pytest.raises(ValueError, match="choose from others, all"):
        LabelSmoothing.of(0.3, 10, "none")


def test_label_smoothing_over_others_is_fairseqs() -> None:
    from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss

    lprobs = torch.log_softmax(torch.randn(8, 13, dtype=torch.float64), -1)
    target = torch.randint(0, 13, (8,))
    expected, expected_nll = label_smoothed_nll_loss(lprobs, target, 0.1)
    loss, nll = LabelSmoothing.of(0.1, 13).loss(lprobs, target)
    torch.testing.assert_close(loss.sum(), expected.sum())
    torch.testing.assert_close(nll.sum(), expected_nll.sum())


def test_divergence_is_zero_for_equal_passes_and_symmetric() -> None:
    a, b = (torch.log_softmax(torch.randn(4, 9, dtype=torch.float64), -1) for _ in range(2))
    assert symmetric_kl(torch.stack([a, a])).abs().max() < 1e-15
    torch.testing.assert_close(symmetric_kl(torch.stack([a, b])), symmetric_kl(torch.stack([b, a])))
    both = (a.exp() * (a - b)).sum(-1) + (b.exp() * (b - a)).sum(-1)
    torch.testing.assert_close(symmetric_kl(torch.stack([a, b])), both / 2)


class NoWaiting(TorchDispatchMode):
    """Refuses what a GPU's host could only do after waiting for the GPU's numbers."""

    WAITS = ("nonzero", "_local_scalar_dense", "masked_select", "unique", "is_nonzero", "item")

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        boolean = name == "index" and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        assert name not in self.WAITS and not boolean, name
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("pad", [PAD, -100])
def test_masking_padding_as_on_a_gpu_equals_leaving_it_out(
    monkeypatch: pytest.MonkeyPatch, m: int, dtype: torch.dtype, pad: int
) -> None:
    """Values and gradients, without a step that would wait, whatever stands at padding."""
    features, weight, bias, target = problem(m, (3, 7), D=4, V=11, seed=3)
    target = target.masked_fill(target == PAD, pad)
    smoothing = LabelSmoothing.of(0.1, 11)
    found = []
    for leaves_out in (True, False):
        monkeypatch.setattr(linear_loss, "_leaves_out", lambda _, value=leaves_out: value)
        inputs = leaves(features, weight, bias, dtype=dtype)
        if not leaves_out:
            with torch.no_grad():
                inputs[0][:, target == pad] = float("nan")

        def run(inputs: list[Tensor] = inputs) -> Any:
            sums = linear_rdrop(*inputs, target, smoothing, 3.0, pad, 4, count_correct=True)
            sums.loss.backward()
            return sums

        if leaves_out:
            sums = run()
        else:
            with NoWaiting():
                sums = run()
        found.append([sums.loss, sums.nll, sums.kl, sums.correct, *(x.grad for x in inputs)])
    # Chunks hold other tokens, so the sums of products in bfloat16 round differently.
    tolerance = 1e-12 if dtype == torch.float64 else 1e-2
    for one, other in zip(*found, strict=True):
        assert one is not None and other is not None and one.dtype == other.dtype
        assert (one - other).double().norm() <= tolerance * one.double().norm()
    assert not found[1][4][:, target == pad].any()


def test_a_batch_of_padding_alone_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_loss, "_leaves_out", lambda _: False)
    features, weight, bias, target = problem(2, (3, 2), D=4, V=11)
    inputs = leaves(features, weight, bias)
    sums = linear_rdrop(*inputs, target.fill_(PAD), LabelSmoothing.of(0.1, 11), 3.0, PAD)
    sums.loss.backward()
    assert sums.loss == sums.nll == sums.kl == 0
    assert not any(x.grad is None or x.grad.any() for x in inputs)
