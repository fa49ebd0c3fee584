"""Residual attention against a twin written from the formula: values, gradients, dropout, types."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from admin_nmt.ops.residual_attention import residual_attention, residual_attention_with_weights
from tests.reference.residual_attention import naive, random_bias


def inputs(
    shape: tuple[int, int, int, int, int],
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[Tensor, ...]:
    """q, k, v and prev for B, H, T, S, K."""
    torch.manual_seed(seed)
    b, h, t, s, size = shape
    return tuple(
        torch.randn(b, h, *dims, dtype=dtype).to(device).requires_grad_()
        for dims in ((t, size), (s, size), (s, size), (t, s))
    )


def gradients(
    outputs: tuple[Tensor, ...], wanted: tuple[Tensor, ...], seed: int
) -> tuple[Tensor, ...]:
    """Of a random projection of all outputs."""
    torch.manual_seed(seed)
    upstream = [torch.randn_like(output) for output in outputs]
    return torch.autograd.grad(outputs, wanted, upstream)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, n) for n in (3, 3, 6, 6, 5)]),
    kind=st.sampled_from(["none", "padding", "causal", "both", "left"]),
    layers=st.integers(1, 5),
    carried=st.booleans(),
    with_weights=st.booleans(),
    in_place=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_the_formula(
    device: str, shape: Any, kind: str, layers: int, carried: bool, with_weights: bool,
    in_place: bool, seed: int,
) -> None:  # fmt: skip
    q, k, v, prev = inputs(shape, seed=seed, device=device)
    leaves = (q, k, v, prev) if carried else (q, k, v)
    bias = random_bias(shape, kind)
    bias = None if bias is None else bias.to(device)
    expected = naive(q, k, v, prev if carried else None, bias, layers)
    function = residual_attention_with_weights if with_weights else residual_attention
    # A leaf that needs a gradient cannot be overwritten: in place works on a copy of it.
    given_prev = (prev.clone() if in_place else prev) if carried else None
    found = function(
        q, k, v, given_prev, bias, scale=shape[-1] ** -0.5, layers=layers, in_place=in_place
    )
    expected = expected[: len(found)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    if carried and in_place:
        assert found[1].data_ptr() == given_prev.data_ptr()
    for one, other in zip(
        gradients(found, leaves, seed), gradients(expected, leaves, seed), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bias", ["none", "both", "left"])
def test_gradcheck(bias: str) -> None:
    shape = (2, 2, 3, 4, 3)
    tensors = inputs(shape)
    mask = random_bias(shape, bias)

    def run(q: Tensor, k: Tensor, v: Tensor, prev: Tensor) -> tuple[Tensor, ...]:
        return residual_attention_with_weights(q, k, v, prev, mask, scale=0.6, layers=3)

    assert torch.autograd.gradcheck(run, tensors)


def test_gradient_flows_when_only_the_scores_or_only_the_context_is_used() -> None:
    shape = (2, 2, 3, 4, 5)
    q, k, v, prev = inputs(shape)
    for index, leaves in ((0, (q, k, v, prev)), (1, (q, k, prev))):
        found = residual_attention(q, k, v, prev, scale=5**-0.5, layers=2)[index]
        expected = naive(q, k, v, prev, None, 2)[index]
        for one, other in zip(
            gradients((found,), leaves, 1), gradients((expected,), leaves, 1), strict=True
        ):
            torch.testing.assert_close(one, other)


def test_first_layer_is_plain_attention(device: str) -> None:
    q, k, v, _ = inputs((2, 3, 5, 6, 4), device=device)
    out, scores = residual_attention(q, k, v, None, scale=0.5)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(scores, q @ k.mT / 2)


def test_masks_do_not_accumulate() -> None:
    """What the causal mask hid in one layer is seen in the next without a mask."""
    shape = (2, 2, 4, 4, 3)
    q, k, v, _ = inputs(shape)
    _, scores = residual_attention(q, k, v, None, random_bias(shape, "both"), scale=1.0)
    assert torch.isfinite(scores).all()
    out, _ = residual_attention(q, k, v, scores, scale=1.0)
    torch.testing.assert_close(out, torch.softmax(2 * (q @ k.mT), -1) @ v)


def test_dropout_drops_the_weights_and_its_gradient_uses_the_same_mask(device: str) -> None:
    """With v = 1 per key and one head size per key, the context shows the dropped weights."""
    b, h, t, s = 3, 2, 40, 50
    q, k, _, prev = inputs((b, h, t, s, s), device=device)
    v = torch.eye(s).to(q).expand(b, h, s, s).clone().requires_grad_()
    torch.manual_seed(3)
    out, _, weights = residual_attention_with_weights(
        q, k, v, prev, scale=0.1, layers=2, dropout_p=0.3
    )
    kept = out != 0
    assert abs(kept.double().mean().item() - 0.7) < 5 * math.sqrt(0.21 / kept.numel())
    # The masks of CPUs have 2^16 levels, CUDA's none.
    dropped = round(0.3 * 2**16) / 2**16 if device == "cpu" else 0.3
    torch.testing.assert_close(out[kept], weights[kept] / (1 - dropped))
    mask = (out / weights).detach()
    scores = 0.1 * (q @ k.mT) + prev
    expected = (torch.softmax(scores / 2, -1) * mask) @ v
    for one, other in zip(
        gradients((out,), (q, k, v, prev), 5), gradients((expected,), (q, k, v, prev), 5),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(one, other)


def test_a_chain_in_place_equals_a_chain_out_of_place() -> None:
    q, k, v, _ = inputs((2, 2, 5, 5, 4))
    results = []
    for in_place in (False, True):
        scores, total = None, torch.zeros(())
        for layer in range(1, 5):
            out, scores = residual_attention(
                q * layer, k, v, scores, scale=0.5, layers=layer, in_place=in_place
            )
            total = total + (out * layer).sum()
            assert not scores._is_view()  # or the next layer could not overwrite it
        results.append((total, *torch.autograd.grad(total, (q, k, v))))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def saved_bytes(run: Any) -> int:
    """Bytes of distinct tensors that autograd keeps for the backward of `run()`."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    del result
    return sum(storages.values())


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
def test_weights_are_kept_once_and_scores_not_at_all(dropout_p: float) -> None:
    shape = (2, 2, 32, 32, 2)
    q, k, v, prev = inputs(shape, torch.float32)
    weights = 2 * 2 * 32 * 32 * 4
    bias = random_bias(shape, "both").float()

    def run() -> Any:
        return residual_attention(q, k, v, prev, bias, scale=0.5, layers=2, dropout_p=dropout_p)

    small = 3 * 2 * 2 * 32 * 2 * 4  # q, k and v
    assert saved_bytes(run) == weights + small + (weights // 4 if dropout_p else 0)


def largest_errors(dtype: torch.dtype, mean: bool, chain: torch.dtype) -> list[float]:
    """Largest error of a weight against float64, same inputs, in each of 60 layers.

    Scores have standard deviation 2, half of their variance the same in all layers, so that the
    chain grows. `chain` other than float32 is the naive chain in that type.
    """
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(2, 2, 2, 20, 16, generator=generator)
    total, scores, errors = torch.zeros(()), None, []
    for layer in range(1, 61):
        fresh = torch.randn(2, 2, 2, 20, 16, generator=generator)
        q, k = (shared + fresh).to(dtype)
        n = layer if mean else 1
        total = total + q.double() @ k.double().mT / 4
        if chain == torch.float32:
            _, scores, weights = residual_attention_with_weights(
                q, k, k, scores, scale=0.25, layers=n
            )
            assert scores.dtype == torch.float32 and weights.dtype == dtype
        else:
            product = (q / 4) @ k.mT
            scores = product if scores is None else scores + product
            weights = torch.softmax(scores / n, -1, dtype=torch.float32)
        errors.append((weights.double() - torch.softmax(total / n, -1)).abs().max().item())
    return errors


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
def test_half_precision_gradients_are_near_float64(dtype: torch.dtype, bound: float) -> None:
    """That of the carried scores, which grows from layer to layer, has float32's digits."""
    shape = (2, 2, 9, 9, 16)
    q, k, v, prev = (x.detach().requires_grad_() for x in inputs(shape))
    rounded = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    carried = prev.detach().float().requires_grad_()
    bias = random_bias(shape, "both")
    found = residual_attention(*rounded, carried, bias.to(dtype), scale=0.25, layers=2)
    exact = [x.detach().double().requires_grad_() for x in (*rounded, carried)]
    expected = naive(*exact, bias, 2)[:2]
    torch.manual_seed(1)
    upstream = [torch.randn_like(x) for x in expected]
    for one, other in zip(
        torch.autograd.grad(
            found, (*rounded, carried), [u.to(f) for u, f in zip(upstream, found, strict=True)]
        ),
        torch.autograd.grad(expected, exact, upstream),
        strict=True,
    ):
        assert (one.double() - other).norm() < bound * other.norm()
    out, _ = residual_attention(*rounded, carried, bias.to(dtype), scale=0.25, layers=2)
    (grad,) = torch.autograd.grad(out.sum(), carried)
    assert grad.dtype == torch.float32 and not torch.equal(grad, grad.to(dtype).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mean", [True, False], ids=["mean", "sum"])
def test_sixty_layers_in_half_precision_do_not_drift(dtype: torch.dtype, mean: bool) -> None:
    """With the chain in float32, the error of a layer stays that of rounding its own products;
    in the type of the inputs, it would grow with the depth: why the chain is float32."""
    ours = largest_errors(dtype, mean, torch.float32)
    theirs = largest_errors(dtype, mean, dtype)
    rounding = 2 * torch.finfo(dtype).eps  # of scores of size 4 to 8, halved by p (1 - p) <= 1/4
    assert max(ours) < (1 if mean else 2.5) * rounding, max(ours)
    assert max(theirs[30:]) > 5 * max(ours[30:]), (max(theirs[30:]), max(ours[30:]))


def test_autocast_changes_nothing(device: str) -> None:
    """Products run in the type of the queries, which a projection under autocast has chosen."""
    q, k, v, prev = inputs((2, 2, 5, 6, 4), torch.float32, device=device)
    expected = residual_attention_with_weights(q, k, v, prev, scale=0.5, layers=2)
    with torch.autocast(device, dtype=torch.bfloat16):
        found = residual_attention_with_weights(q, k, v, prev, scale=0.5, layers=2)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_chain_beyond_the_range_of_float16_stays_finite() -> None:
    q = torch.full((1, 1, 2, 4), 60.0, dtype=torch.float16)
    prev = torch.full((1, 1, 2, 2), 65000.0)
    out, scores = residual_attention(q, q, q, prev, scale=0.5)
    assert torch.isfinite(scores).all() and scores.max() > 65504
    assert torch.equal(out, q)
