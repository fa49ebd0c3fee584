"""ReLU and the dropout after it, with one tensor kept for the backward.

    y = relu(x) * k        k: the dropout mask divided by 1 - p

As two operations they keep relu(x), y and the mask for the backward. Yet y alone, which the next linear
layer keeps anyway, is enough for the gradient: it is above 0 exactly where x is above 0 and was not
dropped.

    dx = dy / (1 - p) where y > 0, else 0
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from admin_nmt.ops.dropout import keep_mask_for


class _ReluDropout(Function):
    """Arguments of `relu_dropout_`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:  # type: ignore[override]
        # In the memory of x, but no in-place operation for autograd, which would copy the gradient of
        # the view that a linear layer returns.
        y = x.detach().relu_()
        ctx.scale = 1.0
        if p > 0 and x.device.type == "cpu":
            mask, ctx.scale = keep_mask_for(x, p)
            assert mask is not None
            y.mul_(mask).mul_(ctx.scale)
        elif p > 0:  # PyTorch's kernel draws, masks and scales at once
            y, ctx.scale = F.dropout(y, p), 1 / (1 - p)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        grad_x = torch.ops.aten.threshold_backward(grad, y, 0)
        return grad_x if ctx.scale == 1 else grad_x.mul_(ctx.scale), None


def relu_dropout_(x: Tensor, p: float) -> Tensor:
    """`dropout(relu(x), p)`: the same numbers and masks as the two operations.

    Args:
        x: any shape. It is overwritten: nobody else may need it.
        p: probability with which an element is dropped, in [0, 1).

    Returns:
        the shape of `x`.

    Examples:
        >>> relu_dropout_(torch.tensor([-1.0, 2.0]), p=0.0)
        tensor([0., 2.])
    """
    if torch.compiler.is_compiling():  # a compiler fuses them itself
        return F.dropout(F.relu(x), p)
    if p == 0 and not x.requires_grad:
        return torch.relu_(x)
    y: Tensor = _ReluDropout.apply(x, p)
    return y
