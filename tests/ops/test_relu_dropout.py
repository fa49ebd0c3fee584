"""ReLU with dropout in one: the numbers of the two operations, one tensor kept."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from admin_nmt.ops.dropout import dropout
from admin_nmt.ops.relu_dropout import relu_dropout_
from tests.support.memory import kept_for_backward


def run(function: object, x: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Output and gradient, with the masks of seed 1."""
    torch.manual_seed(1)
    leaf = x.clone().requires_grad_()
    output = function(1 * leaf, p)  # type: ignore[operator]
    (grad,) = torch.autograd.grad(output, leaf, torch.arange(output.numel()).to(x).view_as(x))
    return output.detach(), grad


def two_operations(x: Tensor, p: float) -> Tensor:
    return dropout(F.relu(x), p)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(7, 3, 10), (5,), (0, 4)])
def test_equals_the_two_operations(
    device: str, dtype: torch.dtype, p: float, shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    x[..., 0] = 0  # where the gradient of ReLU is a choice: PyTorch's is 0
    for found, expected in zip(run(relu_dropout_, x, p), run(two_operations, x, p), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_gradient_by_differences(device: str, p: float) -> None:
    x = torch.randn(4, 6, dtype=torch.float64, device=device, requires_grad=True)

    def function(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return relu_dropout_(1 * x, p)

    assert torch.autograd.gradcheck(function, x)


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_keeps_its_output_alone(device: str, p: float) -> None:
    x = torch.randn(8, 5, device=device, requires_grad=True)
    output, kept = kept_for_backward(lambda: relu_dropout_(1 * x, p))
    assert [tensor.data_ptr() for tensor in kept] == [output.data_ptr()]


def test_an_input_that_somebody_needs_is_refused() -> None:
    x = torch.randn(8, 5, requires_grad=True)
    hidden = 1 * x
    other = hidden.exp() * hidden  # keeps `hidden` for its gradient
    (relu_dropout_(hidden, 0.3).sum() + other.sum()).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.sum().backward()


def test_without_gradients_nothing_is_recorded() -> None:
    with torch.no_grad():
        output = relu_dropout_(torch.tensor([-1.0, 2.0]), 0.0)
    assert output.tolist() == [0.0, 2.0]
    assert output.grad_fn is None
