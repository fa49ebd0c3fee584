"""The kernels of residual attention against the formula: a chain of layers and its gradients."""

import pytest
import torch
from torch import Tensor

from tests.reference.residual_attention import naive, random_bias
from tests.support.interpreter import INTERPRETED

kernels = pytest.importorskip("admin_nmt.ops.residual_attention_triton")

#: B, H, T, S, K; mask; type; largest relative error of norms.
CASES = [
    ((2, 2, 5, 7, 8), "none", torch.float32, 1e-5),
    ((2, 3, 5, 5, 16), "both", torch.float32, 1e-5),
    ((1, 2, 70, 90, 20), "padding", torch.float32, 1e-5),  # several tiles both ways
    ((1, 1, 130, 130, 64), "causal", torch.float32, 1e-5),
    ((1, 1, 3, 140, 128), "padding", torch.float32, 1e-5),
    ((2, 2, 9, 9, 32), "both", torch.float16, 5e-3),
    ((3, 1, 70, 70, 16), "left", torch.float32, 1e-5),
]
if not INTERPRETED:  # the interpreter multiplies the bits of bfloat16 as if they were integers
    CASES.append(((1, 2, 70, 66, 32), "causal", torch.bfloat16, 4e-2))
LAYERS = 3


def chain(operation, shape, mask, dtype, device) -> list[Tensor]:
    """Outputs of a chain of three layers over shared k and v, and all gradients."""
    b, h, t, s, size = shape
    torch.manual_seed(1)
    bias = random_bias(shape, mask)
    bias = None if bias is None else bias.to(device=device, dtype=dtype)
    leaves = [
        torch.randn(length, b, h, size).to(dtype).to(device).requires_grad_()
        for length in [t] * LAYERS + [s, s]
    ]
    *queries, k, v = (leaf.permute(1, 2, 0, 3) for leaf in leaves)
    scores, outputs = None, []
    for number, q in enumerate(queries, 1):
        out, scores = operation(q, k, v, scores, bias, size**-0.5, number)
        outputs.append(out)
    upstream = [torch.randn(x.shape).to(x) for x in outputs]
    return [*outputs, scores, *torch.autograd.grad(outputs, leaves, upstream)]


@pytest.mark.parametrize(("shape", "mask", "dtype", "bound"), CASES)
def test_kernels_equal_the_formula(device: str, shape, mask, dtype, bound) -> None:
    """The kernels against the formula in float64, on the same rounded inputs."""
    found = chain(
        lambda *arguments: kernels.residual_attention(*arguments, 0.0), shape, mask, dtype, device
    )

    def exact(q, k, v, prev, bias, scale, layers):
        q, k, v = q.double(), k.double(), v.double()
        return naive(q, k, v, prev, None if bias is None else bias.double(), layers)[:2]

    expected = chain(exact, shape, mask, dtype, device)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        error = (one.double() - other.double()).norm() / other.double().norm()
        assert error < bound, (shape, mask, dtype, number, error.item())


def test_dropout_of_the_kernels(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share dropped, its scale, and the same mask in the backward; for a CUDA graph the seed is
    a tensor that each replay draws."""
    monkeypatch.setattr(kernels, "mask_seed", lambda device: 77)
    b, h, t, s, p = 2, 2, 70, 64, 0.3
    torch.manual_seed(2)
    q, k = torch.randn(2, b, h, t, 16, device=device)
    k = k[:, :, :s].contiguous().requires_grad_()
    q.requires_grad_()
    v = torch.eye(s, device=device).expand(b, h, s, s)[..., :16].clone().requires_grad_()
    out, scores = kernels.residual_attention(q, k, v, None, None, 0.25, 1, p)
    weights = torch.softmax(scores, -1)
    kept = out.detach() != 0
    assert abs(kept.float().mean().item() - (1 - p)) < 0.02
    mask = kept / (1 - p)
    torch.testing.assert_close(out, weights[..., :16] * mask, rtol=1e-5, atol=1e-6)
    # Only the first 16 keys have values: the mask of the others does not matter.
    full = torch.cat([mask, torch.ones(b, h, t, s - 16, device=device)], -1)
    expected = (torch.softmax(0.25 * q @ k.mT, -1) * full) @ v
    upstream = torch.randn_like(out)
    found = torch.autograd.grad(out, (q, k), upstream)
    wanted = torch.autograd.grad(expected, (q, k), upstream)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(kernels, "mask_seed", lambda device: torch.tensor([77], device=device))
    again, _ = kernels.residual_attention(q, k, v, None, None, 0.25, 1, p)
    assert torch.equal(again, out)
    for one, other in zip(torch.autograd.grad(again, (q, k), upstream), found, strict=True):
        torch.testing.assert_close(one, other)
