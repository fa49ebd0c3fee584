"""Cheap dropout: right probability, unbiased, one mask for forward and backward."""

import math

import pytest
import torch

from admin_nmt.ops.dropout import dropout, keep_mask, mask_seed, num_dropped_levels
from admin_nmt.ops.recording import recording


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_share_of_zeros_is_p(device: str, p: float) -> None:
    torch.manual_seed(0)
    n = 1_000_003  # no multiple of four
    zeros = (dropout(torch.ones(n, device=device), p) == 0).sum().item()
    assert abs(zeros - n * p) < 5 * math.sqrt(n * p * (1 - p)) + n * 2**-17


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_kept_values_make_the_mean_exact(device: str, p: float) -> None:
    # The masks of CPUs have 2^16 levels, CUDA's none.
    dropped = num_dropped_levels(p) / 2**16 if device == "cpu" else p
    out = dropout(torch.ones(10_000, device=device), p)
    kept = out[out != 0]
    assert torch.all(kept == kept[0])
    assert kept[0].item() * (1 - dropped) == pytest.approx(1.0, rel=1e-6)


def test_exactly_the_levels_below_the_threshold_are_dropped() -> None:
    """One level too many would drop 16 of a million, and none would be left of the highest."""
    torch.manual_seed(0)
    shape = torch.Size([1 << 20])
    assert keep_mask(shape, 0).all()
    assert 0 < keep_mask(shape, (1 << 16) - 1).sum() < 48  # 16 are expected


def test_gradient_uses_the_mask_of_the_forward(device: str) -> None:
    x = torch.randn(7, 11, device=device, requires_grad=True)
    out = dropout(x, 0.4)
    out.backward(torch.full_like(out, 3.0))
    scale = out / x.detach()
    torch.testing.assert_close(x.grad, 3.0 * scale)


def test_neighbours_are_independent() -> None:
    """One 64-bit draw serves four elements; their pieces must not be correlated."""
    torch.manual_seed(0)
    kept = keep_mask(torch.Size([250_000, 4]), num_dropped_levels(0.5)).double()
    correlation = torch.corrcoef(kept.T)
    assert (correlation - torch.eye(4)).abs().max() < 0.01


def test_seed_decides_and_zero_is_identity(device: str) -> None:
    x = torch.randn(5, 3, device=device)
    torch.manual_seed(4)
    first = dropout(x, 0.3)
    torch.manual_seed(4)
    assert torch.equal(first, dropout(x, 0.3))
    assert dropout(x, 0.0) is x
    assert dropout(torch.empty(0, 3, device=device), 0.3).shape == (0, 3)


def test_seeds_of_kernels_are_new_numbers_and_in_a_recording_tensors() -> None:
    """A replay draws them again; a number would be the same in all of them."""
    cpu = torch.device("cpu")
    torch.manual_seed(1)
    numbers = [mask_seed(cpu) for _ in range(3)]
    assert len(set(numbers)) == 3 and all(isinstance(number, int) for number in numbers)
    torch.manual_seed(1)
    assert mask_seed(cpu) == numbers[0]
    with recording():
        seed = mask_seed(cpu)
    assert isinstance(seed, torch.Tensor) and seed.shape == (1,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_is_kept(device: str, dtype: torch.dtype) -> None:
    out = dropout(torch.ones(1000, dtype=dtype, device=device), 0.25)
    assert out.dtype == dtype
    assert set(out.unique().tolist()) == {0.0, out.max().item()}
