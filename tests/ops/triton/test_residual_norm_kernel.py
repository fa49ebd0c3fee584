"""Fused residual, dropout and LayerNorm against the formula in float64: values and all gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.interpreter import INTERPRETED

kernels = pytest.importorskip("admin_nmt.ops.residual_norm_triton")

#: Rows, D: odd sizes, one element, several tiles of rows for every program, a whole row each.
SHAPES = [((1,), 1), ((3, 7), 33), ((5, 2), 128), ((40, 3), 100), ((3,), 1000), ((2,), 4096), ((2,), 5000)]  # fmt: skip
#: Largest relative error of norms.
BOUNDS = {torch.float32: 2e-6, torch.float16: 1.5e-3, torch.bfloat16: 1.2e-2}
EPS = 1e-5
#: What x is multiplied by, in all combinations with types that share no code path.
KINDS = [
    *((torch.float32, kind) for kind in ("omega", "constant", "one", "frozen")),
    *((torch.bfloat16, kind) for kind in ("omega", "constant")),
    (torch.float16, "omega"),
]
#: All combinations, or in the slow interpreter every shape once and two of them with all kinds.
CASES = [
    (*shape, *kind)
    for shape in SHAPES
    for kind in KINDS
    if not INTERPRETED or kind == KINDS[0] or shape in SHAPES[1:3]
]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernels are to write holds NaN before."""

    def poison(tensor: Tensor) -> Tensor:
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    for name in ("empty", "empty_like"):
        plain = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, plain=plain, **k: poison(plain(*a, **k)))
    new_empty = Tensor.new_empty
    monkeypatch.setattr(Tensor, "new_empty", lambda *a, **k: poison(new_empty(*a, **k)))


def formula(
    f: Tensor, x: Tensor, factor: Any, weight: Tensor, bias: Tensor, mask: Any = 1.0
) -> Tensor:
    """LayerNorm of the sum."""
    r = factor * x + mask * f
    z = (r - r.mean(-1, keepdim=True)) / (r.var(-1, correction=0, keepdim=True) + EPS).sqrt()
    return z * weight + bias


def problem(rows: tuple[int, ...], D: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Branch, shortcut, omega, weight and bias."""
    torch.manual_seed(len(rows) * D)
    shapes = [(*rows, D), (*rows, D), (D,), (D,), (D,)]
    tensors = [torch.randn(shape).to(dtype) + (n > 1) for n, shape in enumerate(shapes)]
    return [tensor.to(device).requires_grad_() for tensor in tensors]


def check(found: Any, expected: Any, bound: float) -> None:
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.shape == other.shape
        error = (one.double() - other.double()).norm()
        assert error <= bound * max(other.double().norm(), 1e-2), (number, error, other.norm())


@pytest.mark.parametrize(("rows", "D", "dtype", "kind"), CASES, ids=str)
def test_equals_the_formula(
    device: str, rows: tuple[int, ...], D: int, dtype: torch.dtype, kind: str
) -> None:
    leaves = problem(rows, D, dtype, device)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    factor: dict[str, Any] = {"constant": 2.5, "one": 1.0}
    f, x, omega, weight, bias = leaves
    if kind == "frozen":
        omega.requires_grad_(False)
    found = kernels.fused(f, x, factor.get(kind, omega), weight, bias, EPS, 0.0)
    twin = formula(exact[0], exact[1], factor.get(kind, exact[2]), *exact[3:])
    wanted = [0, 1, 3, 4] + ([2] if kind == "omega" else [])
    if D == 1:  # the LayerNorm of one number is its bias, and its gradient rounding alone
        torch.testing.assert_close(found, bias.expand_as(found), rtol=1e-5, atol=1e-5)
        return
    upstream = torch.randn(*rows, D).to(device, dtype)
    gradients = torch.autograd.grad(found, [leaves[n] for n in wanted], upstream)
    expected = torch.autograd.grad(twin, [exact[n] for n in wanted], upstream.double())
    assert [g.dtype for g in gradients] == [dtype] * len(wanted)
    check([found], [twin], BOUNDS[dtype])
    check(gradients, expected, 3 * BOUNDS[dtype])


def test_dropout(device: str, monkeypatch: Any) -> None:
    """The share dropped; forward and backward use one mask, the same for one seed, which for a CUDA graph
    is a tensor."""
    p, rows, D = 0.3, (21, 3), 600  # few rows: the interpreter takes them one by one
    monkeypatch.setattr(kernels, "mask_seed", lambda device: 77)
    f, x, omega, weight, bias = leaves = problem(rows, D, torch.float32, device)
    upstream = torch.randn(*rows, D, device=device)
    # With a factor of 1 the gradients of branch and shortcut differ by the mask alone.
    norm = kernels.fused(f, x, 1.0, weight, bias, EPS, p)
    grad_f, grad_x = torch.autograd.grad(norm, (f, x), upstream)
    mask = (grad_f / grad_x).double()
    kept = mask != 0
    assert abs(kept.double().mean().item() - (1 - p)) < 5 * (p * (1 - p) / mask.numel()) ** 0.5
    torch.testing.assert_close(mask[kept], torch.full_like(mask[kept], 1 / (1 - p)))
    mask[kept] = 1 / (1 - p)
    neighbours = torch.corrcoef(kept.view(-1, 4).double().T) - torch.eye(4, device=device)
    assert neighbours.abs().max() < 0.05
    monkeypatch.setattr(kernels, "mask_seed", lambda device: torch.tensor([77], device=device))
    found = kernels.fused(f, x, omega, weight, bias, EPS, p)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    twin = formula(*exact, mask)
    check([found], [twin], 2e-6)
    check(
        torch.autograd.grad(found, leaves, upstream),
        torch.autograd.grad(twin, exact, upstream.double()),
        1e-5,
    )


def test_inputs_of_any_strides_and_types(device: str) -> None:
    """Transposed, expanded and sliced inputs; half-precision branch, float32 shortcut (autocast)."""
    torch.manual_seed(0)
    x = torch.randn(4, 24, 5, device=device).permute(0, 2, 1).requires_grad_()
    f = torch.randn(24, device=device).half().expand(4, 5, 24).detach().requires_grad_()
    weight, bias = torch.randn(2, 2, 24, device=device)[:, 1]
    norm = kernels.fused(f, x, 1.5, weight, bias, EPS, 0.0)
    assert norm.dtype == torch.float32
    wide = [t.detach().double().requires_grad_() for t in (f, x)]
    twin = formula(wide[0], wide[1], 1.5, weight.double(), bias.double())
    upstream = torch.randn(5, 24, device=device).expand(4, 5, 24)
    found = torch.autograd.grad(norm, (f, x), upstream)
    assert [g.dtype for g in found] == [torch.float16, torch.float32]
    expected = torch.autograd.grad(twin, wide, upstream.double())
    check([norm], [twin], 2e-6)
    check(found[1:], expected[1:], 5e-6)
    check(found[:1], expected[:1], 1e-3)


def test_no_rows_and_equal_bits(device: str) -> None:
    leaves = problem((0, 3), 20, torch.float32, device)
    norm = kernels.fused(*leaves, EPS, 0.1)
    assert norm.shape == (0, 3, 20)
    assert all((g == 0).all() for g in torch.autograd.grad(norm.sum(), leaves))
    leaves = problem((97,), 64, torch.float32, device)
    norm = kernels.fused(*leaves, EPS, 0.0)
    runs = [torch.autograd.grad(norm.square().sum(), leaves, retain_graph=True) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_the_operation_hands_on_to_the_kernels(device: str, monkeypatch: Any) -> None:
    """`residual_norm`, as layers call it, over leading shapes (T, B)."""
    from admin_nmt.ops import residual_norm as operation

    monkeypatch.setattr(operation, "_kernels", lambda branch: kernels)
    f, x, omega, weight, bias = problem((3, 7), 33, torch.float32, device)
    exact = [tensor.detach().double() for tensor in (f, x, omega, weight, bias)]
    norm = operation.residual_norm(f, x, omega, weight, bias, EPS)
    check([norm], [formula(*exact)], 2e-6)
