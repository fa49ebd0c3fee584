"""The fused chunk step against the plain one."""

import pytest
import torch

from admin_nmt.ops import loss_chunk
from admin_nmt.ops.label_smoothing import LabelSmoothing

triton_step = pytest.importorskip("admin_nmt.ops.linear_loss_triton")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in a vocabulary of 300, the last one partial."""
    monkeypatch.setattr(triton_step, "_BLOCK", 128)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("m", [1, 2, 3])
@pytest.mark.parametrize("V", [5, 300])
def test_kernel_equals_the_plain_step(device: str, m: int, V: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(6, m, V)).to(dtype)
    target = torch.randint(0, V, (6,))
    smoothing, alpha, scale = LabelSmoothing.of(0.1, V), 2.0, 4.0
    wide = logits.double().clone()
    expected = loss_chunk.loss_and_gradient_(
        wide, target, smoothing, alpha, torch.empty_like(wide), wide.new_empty(6, 1, V)
    )
    moved = logits.to(device)
    found = triton_step.loss_and_gradient_(moved, target.to(device), smoothing, alpha, scale)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-4)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 5e-4}[
        dtype
    ]  # one unit in the last place
    error = (moved.cpu().double() / scale - wide).abs().max()
    assert error < tolerance * max(1.0, wide.abs().max().item())


def test_kernel_leaves_logits_alone_without_gradients(device: str) -> None:
    logits = torch.randn(3, 2, 40, device=device)
    before = logits.clone()
    triton_step.loss_and_gradient_(
        logits, torch.tensor([1, 2, 3], device=device), LabelSmoothing.of(0.1, 40), 1.0, 1.0, False
    )
    assert torch.equal(logits, before)


@pytest.mark.parametrize("m", [1, 2])
def test_kernel_ignores_tokens_without_a_target(device: str, m: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, m, 300, device=device)
    logits[2] = float("nan")
    target = torch.tensor([4, -1, -1, 299, 0], device=device)
    counted = target >= 0
    smoothing = LabelSmoothing.of(0.1, 300)
    alone = logits[counted].clone()
    expected = triton_step.loss_and_gradient_(alone, target[counted], smoothing, 2.0)
    found = triton_step.loss_and_gradient_(logits, target, smoothing, 2.0)
    assert torch.equal(found, expected)
    assert torch.equal(logits[counted], alone)
    assert not logits[~counted].any()
