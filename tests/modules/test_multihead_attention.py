"""Our attention equals fairseq's with the same weights: values, gradients, masks, decoding."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fairseq.modules import MultiheadAttention as StockAttention
from torch import Tensor

from admin_nmt.modules.multihead_attention import (
    MultiheadAttention,
    fuse_projections,
    split_projections,
)
from admin_nmt.modules.residual_attention import ResidualAttention
from admin_nmt.ops.attention import attention_weights
from tests.support.memory import kept_for_backward, num_bytes

D, H, B, T, S = 24, 3, 4, 5, 7


def pair(kv_dim: int | None, device: str = "cpu") -> tuple[MultiheadAttention, StockAttention]:
    """Ours and fairseq's with equal random weights and biases."""
    torch.manual_seed(0)
    ours = MultiheadAttention(D, H, kv_dim=kv_dim)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    stock = StockAttention(
        D, H, kdim=kv_dim, vdim=kv_dim,
        self_attention=kv_dim is None, encoder_decoder_attention=kv_dim is not None,
    )  # fmt: skip
    state = {f"a.{name}": value.clone() for name, value in ours.state_dict().items()}
    split_projections(state, "a", self_attention=kv_dim is None)
    stock.load_state_dict({name[2:]: value for name, value in state.items()})
    return ours.to(device), stock.to(device)


def padding(length: int, device: str = "cpu") -> Tensor:
    """(B, length), each row padded at the end by another number of positions."""
    rows = torch.arange(length)[None] >= (length - torch.arange(B))[:, None]
    return rows.to(device)


def require_equal_gradients(
    ours: MultiheadAttention, stock: StockAttention, self_attention: bool
) -> None:
    """Of every weight and bias, ours taken apart as fairseq names them."""
    gradients = {f"a.{name}": parameter.grad for name, parameter in ours.named_parameters()}
    split_projections(gradients, "a", self_attention)
    expected = {f"a.{name}": parameter.grad for name, parameter in stock.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=2e-5, msg=name)


CAUSAL = torch.full((T, T), float("-inf")).triu(1)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("head_weights", [False, True])
def test_self_attention_equals_fairseqs(
    device: str, padded: bool, causal: bool, head_weights: bool
) -> None:
    ours, stock = pair(None, device)
    x = torch.randn(T, B, D).to(device).requires_grad_()
    y = x.detach().clone().requires_grad_()
    arguments = {
        "key_padding_mask": padding(T, device) if padded else None,
        "attn_mask": CAUSAL.to(device) if causal else None,
        "need_weights": True,
        "need_head_weights": head_weights,
    }
    out, weights = ours(x, x, x, **arguments)
    # fairseq's usual path knows no head weights; with an (empty) cache it takes its own.
    stock_state = {"incremental_state": {}} if head_weights else {}
    expected, expected_weights = stock(y, y, y, **arguments, **stock_state)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-5, atol=1e-6)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    require_equal_gradients(ours, stock, self_attention=True)


@pytest.mark.parametrize("kv_dim", [D, 16])
@pytest.mark.parametrize("need_weights", [False, True])
def test_encoder_attention_equals_fairseqs(device: str, kv_dim: int, need_weights: bool) -> None:
    ours, stock = pair(kv_dim, device)
    inputs = torch.randn(T, B, D), torch.randn(S, B, kv_dim)
    x, memory = (tensor.to(device).requires_grad_() for tensor in inputs)
    y, stock_memory = (tensor.detach().clone().requires_grad_() for tensor in (x, memory))
    arguments = {"key_padding_mask": padding(S, device), "static_kv": True}
    arguments["need_weights"] = need_weights
    out, weights = ours(x, memory, memory, **arguments)
    expected, expected_weights = stock(y, stock_memory, stock_memory, **arguments)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    if need_weights:
        torch.testing.assert_close(weights, expected_weights, rtol=1e-5, atol=1e-6)
    else:
        assert weights is None
    upstream = torch.randn_like(out)
    out.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(memory.grad, stock_memory.grad, rtol=1e-4, atol=1e-5)
    require_equal_gradients(ours, stock, self_attention=False)


def test_kernel_path_equals_the_path_with_weights(device: str) -> None:
    ours, _ = pair(None, device)
    x = torch.randn(T, B, D).to(device)
    padded = padding(T, device)
    for mask in (None, CAUSAL.to(device)):
        fast, _ = ours(x, need_weights=False, attn_mask=mask, key_padding_mask=padded)
        plain, _ = ours(x, need_weights=True, attn_mask=mask, key_padding_mask=padded)
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)


def test_context_of_the_memory_efficient_kernel_is_kept_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That kernel, which runs on GPUs where there is a mask, lays its output batch first."""
    ours, _ = pair(None)
    x = torch.randn(T, B, D, requires_grad=True)
    mask = padding(T)
    own = [*ours.parameters(), x]

    def attend() -> Tensor:
        output: Tensor = ours(x, need_weights=False, key_padding_mask=mask)[0]
        return output

    expected, usual = kept_for_backward(attend, own)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    kernel = F.scaled_dot_product_attention

    class BatchFirst(torch.autograd.Function):
        """Another layout of the same numbers; it keeps its output, as the kernel does."""

        @staticmethod
        def forward(ctx: Any, context: Tensor) -> Tensor:
            laid = context.transpose(1, 2).contiguous().transpose(1, 2)
            ctx.save_for_backward(laid)
            return laid

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad

    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: BatchFirst.apply(kernel(*a, **k))
    )
    found, kept = kept_for_backward(attend, own)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous()
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), x)[0], gradient)
    # The kernel in use here keeps its own output too; a third copy would be the projection's.
    assert num_bytes(kept) - num_bytes(usual) == x.numel() * x.element_size()


def test_incremental_decoding_with_reordered_beams_equals_full_decoding(device: str) -> None:
    ours, _ = pair(None, device)
    ours.eval()
    x = torch.randn(T, B, D).to(device)
    causal = CAUSAL.to(device)
    order = torch.tensor([2, 0, 3, 3], device=device)
    state: dict = {}
    for step in range(T):
        if step == 3:  # beams change places: so do the inputs they have seen
            ours.reorder_incremental_state(state, order)
            x = x[:, order]
        out, _ = ours(x[step : step + 1], incremental_state=state, need_weights=False)
        full, _ = ours(x[: step + 1], attn_mask=causal[: step + 1, : step + 1], need_weights=False)
        torch.testing.assert_close(out[0], full[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("places", [[(1, 0), (2, 0), (2, 1), (3, 3)], [(3, 3)]], ids=str)
def test_padding_of_earlier_steps_stays_hidden(device: str, places: list[tuple[int, int]]) -> None:
    """Steps get a mask only where a row is at padding, as in fairseq's decoder; (row, place)."""
    ours, _ = pair(None, device)
    ours.eval()
    x, causal = torch.randn(T, B, D).to(device), CAUSAL.to(device)
    padded = torch.zeros(B, T, dtype=torch.bool, device=device)
    for place in places:
        padded[place] = True
    state: dict = {}
    for step in range(T):
        now, seen = padded[:, step : step + 1], padded[:, : step + 1]
        out, _ = ours(
            x[step : step + 1], incremental_state=state, need_weights=False,
            key_padding_mask=now if now.any() else None,
        )  # fmt: skip
        full, _ = ours(
            x[: step + 1], attn_mask=causal[: step + 1, : step + 1], key_padding_mask=seen
        )
        torch.testing.assert_close(out[0], full[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kv_dim", [None, D, 2 * D])
def test_initial_weights_are_spread_as_fairseqs(kv_dim: int | None) -> None:
    """The largest of 576 uniform numbers or more is within 3 % of their bound."""
    torch.manual_seed(1)
    ours = MultiheadAttention(D, H, kv_dim=kv_dim)
    stock = StockAttention(
        D, H, kdim=kv_dim, vdim=kv_dim,
        self_attention=kv_dim is None, encoder_decoder_attention=kv_dim is not None,
    )  # fmt: skip
    weights = {name: weight for name, (weight, _) in ours.projections().items()}
    for name, weight in (weights | {"out": ours.out_proj.weight}).items():
        expected = getattr(stock, f"{name}_proj").weight.abs().max().item()
        assert weight.abs().max().item() == pytest.approx(expected, rel=0.04), name
    assert not ours.out_proj.bias.any()


def test_static_keys_are_computed_once_and_padding_kept() -> None:
    ours, _ = pair(16)
    ours.eval()
    memory, mask = torch.randn(S, B, 16), padding(S)
    state: dict = {}
    x = torch.randn(2, B, D)
    first, _ = ours(x[:1], memory, key_padding_mask=mask, incremental_state=state, static_kv=True)
    second, _ = ours(x[1:], None, key_padding_mask=mask, incremental_state=state, static_kv=True)
    both, _ = ours(x, memory, key_padding_mask=mask)
    torch.testing.assert_close(torch.cat([first, second]), both, rtol=1e-5, atol=1e-5)


def test_static_keys_move_only_where_a_sentence_has_ended() -> None:
    """Rows 0, 1 and 2, 3 are beams of one sentence each. While both are translated nothing is copied."""
    ours, _ = pair(16)
    ours.eval()
    both, mask = torch.tensor([0, 0, 2, 2]), padding(S)
    memory, mask = torch.randn(S, B, 16)[:, both], mask[both]
    x = torch.randn(3, B, D)
    state: dict = {}

    def step(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, _ = ours(x, memory, key_padding_mask=mask, incremental_state=state, static_kv=True)
        return out, next(iter(state.values()))["prev_key"]

    _, keys = step(x[:1])
    ours.reorder_incremental_state(state, torch.tensor([1, 1, 3, 2]))
    out, same = step(x[1:2])
    assert same is keys
    torch.testing.assert_close(out, ours(x[1:2], memory, key_padding_mask=mask)[0])
    ours.reorder_incremental_state(state, torch.tensor([3, 2]))
    memory, mask = memory[:, 2:], mask[2:]
    out, _ = step(x[2:, :2])
    torch.testing.assert_close(out, ours(x[2:, :2], memory, key_padding_mask=mask)[0])


@pytest.mark.parametrize("self_attention", [True, False])
def test_fusing_undoes_splitting(self_attention: bool) -> None:
    ours = MultiheadAttention(D, H, kv_dim=None if self_attention else 16)
    state = {f"m.{name}": value for name, value in ours.state_dict().items()}
    original = dict(state)
    split_projections(state, "m", self_attention)
    assert {f"m.{p}_proj.weight" for p in "qkv"} < set(state)
    fuse_projections(state, "m", self_attention)
    assert state.keys() == original.keys()
    assert all(torch.equal(state[name], value) for name, value in original.items())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_half_precision_is_near_float32(device: str, dtype: torch.dtype, tolerance: float) -> None:
    # Bounds: a few units of the type's rounding (2^-11, 2^-8) over sums of 24 products of size 1.
    ours, _ = pair(None, device)
    x = torch.randn(T, B, D).to(device)
    expected, _ = ours(x, need_weights=True)
    out, _ = ours.to(dtype)(x.to(dtype), need_weights=True)
    error = (out.float() - expected).norm() / expected.norm()
    assert error < tolerance


def test_scores_are_scaled_before_they_could_leave_the_range_of_float16(device: str) -> None:
    """q k^T is 230,400, of which an eighth is left; float16 ends at 65,504."""
    q = torch.full((1, 1, 2, 64), 60.0, dtype=torch.float16, device=device)
    weights = attention_weights(q, q, None, scale=64**-0.5)
    assert torch.equal(weights, torch.full_like(weights, 0.5))


def test_a_query_that_sees_no_key_has_weights_of_zero_and_no_gradient(device: str) -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(1, 2, 3, 4).to(device).requires_grad_() for _ in range(2))
    bias = torch.zeros(3, 3, device=device)
    bias[1] = float("-inf")
    weights = attention_weights(q, k, bias, scale=0.5)
    assert weights.sum(-1).tolist() == [[pytest.approx([1, 0, 1])] * 2]
    weights.square().sum().backward()
    assert q.grad.isfinite().all() and k.grad.isfinite().all() and not q.grad[:, :, 1].any()


@pytest.mark.parametrize(("length", "kernel"), [(20, False), (300, True)])
def test_short_sentences_in_half_precision_do_without_the_kernel(
    length: int, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    original = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **kwargs: called.append(1) or original(*args, **kwargs),
    )
    ours, _ = pair(None)
    x = torch.randn(length, B, D)
    expected, _ = ours(x, key_padding_mask=padding(length), need_weights=False)
    called.clear()
    found, _ = ours.bfloat16()(x.bfloat16(), key_padding_mask=padding(length), need_weights=False)
    assert bool(called) == kernel
    assert (found.float() - expected).norm() < 2e-2 * expected.norm()


def test_attention_dropout_keeps_the_mean() -> None:
    ours, _ = pair(None)
    ours.dropout_module.p = 0.3
    x = torch.randn(T, B, D)
    with torch.no_grad():
        ours.eval()
        expected, _ = ours(x, need_weights=False)
        ours.train()
        torch.manual_seed(1)
        mean = torch.stack([ours(x, need_weights=False)[0] for _ in range(3000)]).mean(0)
    assert (mean - expected).norm() / expected.norm() < 0.03
    outputs = []
    for need_weights in (False, True):  # the last layer of a decoder gives weights in training too
        torch.manual_seed(1)
        outputs.append(ours(x, need_weights=need_weights)[0])
    torch.testing.assert_close(*outputs)
    assert not torch.allclose(outputs[0], expected)


def test_residual_attention_drops_the_weights_that_plain_attention_drops() -> None:
    """In a first layer, to which nothing is carried."""
    plain, residual = MultiheadAttention(D, H, dropout=0.3), ResidualAttention(D, H, dropout=0.3)
    residual.load_state_dict(plain.state_dict())
    x, outputs = torch.randn(T, B, D), []
    for module, training in ((plain, True), (residual, True), (residual, False)):
        torch.manual_seed(1)
        outputs.append(module.train(training)(x, need_weights=False)[0])
    torch.testing.assert_close(outputs[1], outputs[0])
    assert not torch.allclose(outputs[2], outputs[0])


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="embed_dim 10 is not divisible by num_heads 3"):
        MultiheadAttention(10, 3)


@pytest.mark.parametrize("kv_dim", [None, 16])
def test_surviving_heads_compute_what_they_did(kv_dim: int | None) -> None:
    """A module with the weights of heads 0 and 2 is the whole one with head 1 gated off."""
    whole, _ = pair(kv_dim)
    pruned = MultiheadAttention(D, 2, kv_dim=kv_dim, head_dim=D // H)
    rows = torch.tensor([i for i in range(D) if i // (D // H) != 1])
    with torch.no_grad():
        for part, (weight, bias) in pruned.projections().items():
            weight.copy_(whole.projections()[part][0][rows])
            bias.copy_(whole.projections()[part][1][rows])
        pruned.out_proj.weight.copy_(whole.out_proj.weight[:, rows])
        pruned.out_proj.bias.copy_(whole.out_proj.bias)
    x, memory = torch.randn(T, B, D), torch.randn(S, B, kv_dim or D)
    whole.head_gate = torch.tensor([1.0, 0.0, 1.0])
    for need_weights in (False, True):
        expected, _ = whole(x, memory, need_weights=need_weights)
        out, _ = pruned(x, memory, need_weights=need_weights)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    names = [f"m.{part}_proj" for part in "qkv"]
    state = {f"m.{name}": value for name, value in pruned.state_dict().items()}
    original = dict(state)
    split_projections(state, "m", kv_dim is None)
    assert all(state[f"{name}.bias"].shape == (2 * D // H,) for name in names)
    fuse_projections(state, "m", kv_dim is None)
    assert all(torch.equal(state[name], value) for name, value in original.items())


@pytest.mark.parametrize("kv_dim", [None, 16])
def test_attention_without_heads_gives_its_output_bias(kv_dim: int | None) -> None:
    module = MultiheadAttention(D, 0, kv_dim=kv_dim, dropout=0.1, head_dim=8)
    assert [name for name, _ in module.named_parameters()] == ["out_proj.bias"]
    torch.nn.init.normal_(module.out_proj.bias)
    x, memory = torch.randn(T, B, D), None if kv_dim is None else torch.randn(S, B, kv_dim)
    keys = T if kv_dim is None else S
    out, weights = module(x, memory, key_padding_mask=padding(keys))
    assert torch.equal(out, module.out_proj.bias.expand(T, B, D))
    assert torch.equal(weights, torch.zeros(B, T, keys))
    state: dict = {}
    for step in range(2):
        out, weights = module(
            x[step : step + 1], memory, incremental_state=state, static_kv=kv_dim is not None,
            need_head_weights=True,
        )  # fmt: skip
        assert weights.shape == (1, B, 1, step + 1 if kv_dim is None else S)
        module.reorder_incremental_state(state, torch.tensor([1, 0, 3, 3]))
    module(x, memory)[0].sum().backward()
    assert torch.equal(module.out_proj.bias.grad, torch.full((D,), float(T * B)))


def test_gates_have_gradients_per_head_and_token() -> None:
    """The gradient of a gate is the context times its own gradient (arXiv 1905.10650)."""
    ours, _ = pair(None)
    x = torch.randn(T, B, D)
    upstream = torch.randn(T, B, D)
    ours.head_gate = torch.ones(B, H, T, 1, requires_grad=True)
    out, _ = ours(x, need_weights=False)
    out.backward(upstream)
    fine = ours.head_gate.grad
    ours.head_gate = torch.ones(H, requires_grad=True)
    ours(x, need_weights=False)[0].backward(upstream)
    torch.testing.assert_close(fine.sum((0, 2, 3)), ours.head_gate.grad, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for step in (-1e-2, 1e-2):
            ours.head_gate = torch.tensor([1.0, 1.0 + step, 1.0])
            change = ((ours(x, need_weights=False)[0] - out) * upstream).sum() / step
            torch.testing.assert_close(change, fine[:, 1].sum(), rtol=1e-2, atol=1e-2)
