"""Gradients and weights of many small parameters handled together in trainings of our models.

A model of 60 and 12 layers has more than a thousand parameters. Around each update fairseq copies
gradients to float32, takes their norm, clears them and copies weights back in Python loops over the
parameters (the copies only, where the float32 weights are flat, see `flat_weights`): thousands of kernels
of a few microseconds each, launched one by one. PyTorch's multi-tensor operations do the same with a
few launches. The numbers are the same. On a GPU the float32 gradients exist only from the end of the
backward pass to the end of the update: activations need the memory before.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from admin_nmt.host.master_weights import masters
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

#: Numbers whose squares PyTorch may add up one after the other.
_LONGEST_SUM = 1 << 16
#: Elements of a float32 gradient from which freeing it is worth the host's time: matrices, no vectors.
_LARGE = 1 << 16


def _freed(master: Tensor) -> bool:
    """Whether the gradient of a float32 weight is freed after an update. On CPUs new memory costs more
    than clearing the old."""
    return master.is_cuda and master.numel() >= _LARGE


def _copy(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copy the second tensor of each pair into the first, of the same shape."""
    targets, sources = [], []
    for target, source in pairs:
        targets.append(target)
        sources.append(source)
    if targets:
        torch._foreach_copy_(targets, sources)


class FlatCopy:
    """A flat float32 copy of weights that lie in it in a row.

    Args:
        flat: the copy.
        weights: 16-bit, in their order.
    """

    def __init__(self, flat: nn.Parameter, weights: Sequence[nn.Parameter]) -> None:
        self.flat, self.weights = flat, list(weights)
        self._pieces = self._in_pieces(flat.detach())
        self._gradient: Tensor | None = None
        self._gradient_pieces: list[Tensor] = []

    def _in_pieces(self, row: Tensor) -> list[Tensor]:
        """Views in the shapes of the weights; a thousand of them take a while to make."""
        return list(_unflatten_dense_tensors(row, self.weights))

    def take_gradients(self) -> None:
        """Copy the gradients of the weights; where there is none, zeros."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.weights]
        if self.flat.grad is None or _freed(self.flat):
            self.flat.grad = _flatten_dense_tensors(gradients).float()
            return
        if self._gradient is not self.flat.grad:
            self._gradient = self.flat.grad
            self._gradient_pieces = self._in_pieces(self.flat.grad)
        _copy(zip(self._gradient_pieces, gradients, strict=True))

    def give_weights(self) -> None:
        """Round the float32 values into the weights."""
        _copy((p.data, piece) for p, piece in zip(self.weights, self._pieces, strict=True))


class SeparateCopies:
    """A float32 copy of each weight.

    Args:
        copies: one a weight.
        weights: 16-bit; those that require no gradient are left alone.
    """

    def __init__(self, copies: Sequence[nn.Parameter], weights: Sequence[nn.Parameter]) -> None:
        self.pairs = list(zip(weights, copies, strict=True))

    def take_gradients(self) -> None:
        """See `FlatCopy`."""
        trained = [(p, copy) for p, copy in self.pairs if p.requires_grad]
        for p, copy in trained:
            if copy.grad is None:
                copy.grad = torch.empty_like(copy)
            if p.grad is None:
                copy.grad.zero_()
        _copy((copy.grad, p.grad) for p, copy in trained if p.grad is not None)  # type: ignore[misc]

    def give_weights(self) -> None:
        """See `FlatCopy`."""
        _copy((p.data, copy.data) for p, copy in self.pairs if p.requires_grad)


def copies_of(optimizer: Any) -> Sequence[FlatCopy | SeparateCopies]:
    """The float32 weights of a 16-bit optimizer: one flat copy a device, or separate ones."""
    weights, held = optimizer.fp16_params, optimizer.fp32_params
    if not optimizer.has_flat_params:
        return [SeparateCopies(held, weights)]
    if len(held) == 1:
        return [FlatCopy(flat, weights) for flat in held.values()]
    return [
        FlatCopy(flat, [p for p in weights if p.device.index == device])
        for device, flat in held.items()
    ]


@torch.no_grad()
def copy_gradients(optimizer: Any, copies: Sequence[FlatCopy | SeparateCopies]) -> None:
    """fairseq's `_sync_fp16_grads_to_fp32`: the gradients of the 16-bit weights, in float32."""
    if optimizer._needs_sync:
        for copy in copies:
            copy.take_gradients()
        optimizer._needs_sync = False


@torch.no_grad()
def copy_weights(copies: Sequence[FlatCopy | SeparateCopies]) -> None:
    """fairseq's `_sync_fp32_params_to_fp16`: the rounded weights after a step."""
    for copy in copies:
        copy.give_weights()


def clear_gradients(optimizer: Any) -> None:
    """fairseq's `zero_grad` of 16-bit trainings; large float32 gradients on GPUs are freed."""
    for p in optimizer.fp16_params:
        p.grad = None
    held = masters(optimizer)
    for p32 in held:
        if _freed(p32):
            p32.grad = None
    gradients = [p32.grad for p32 in held if p32.grad is not None]
    if gradients:
        torch._foreach_zero_(gradients)
    optimizer._needs_sync = False
    # Without a scaler too: an update that was left out has set the factor and not used it up.
    scale = 1.0 if optimizer.scaler is None else float(optimizer.scaler.loss_scale)
    optimizer._multiply_factor = 1.0 / scale


def _summed_exactly(gradients: Sequence[Tensor]) -> list[Tensor]:
    """Gradients whose float32 norms are good to five digits and more: PyTorch adds up squares on CPUs
    one after the other, which loses 4e-4 of the norm of 10 million numbers and 1 % of 100 million."""
    return [
        part
        for gradient in gradients
        for part in ([gradient] if gradient.is_cuda else gradient.reshape(-1).split(_LONGEST_SUM))
    ]


@torch.no_grad()
def clip_gradients(
    optimizer: Any, max_norm: float, aggregate_norm_fn: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """fairseq's `clip_grad_norm`: the norm of all gradients, in float32, which are scaled down to
    `max_norm` if that is above 0 and they are larger."""
    gradients = [p.grad for p in optimizer.params if p.grad is not None]
    norms = torch._foreach_norm(_summed_exactly(gradients), 2, dtype=torch.float32)
    total = torch.linalg.vector_norm(torch.stack(norms))
    if aggregate_norm_fn is not None:
        total = aggregate_norm_fn(total)
    if max_norm > 0:
        torch._foreach_mul_(gradients, (max_norm / (total + 1e-6)).clamp_(max=1))
    return total


def serve(optimizer: Any) -> None:
    """Let a fairseq optimizer use the functions above where they serve it."""
    from fairseq.optim.bmuf import FairseqBMUF
    from fairseq.optim.fp16_optimizer import FP16Optimizer

    if isinstance(optimizer, FairseqBMUF):
        return  # its norm is that of the optimizer inside, which copies the gradients first
    inner = optimizer
    for name in ("fp32_optimizer", "wrapped_optimizer"):
        inner = getattr(optimizer, name, inner)
    parameters = list(inner.params)
    if any(hasattr(p, "expert") for p in parameters):
        return  # fairseq counts those of mixtures apart
    inner.clip_grad_norm = _or_fairseqs(inner)
    if isinstance(optimizer, FP16Optimizer) and not torch.is_tensor(optimizer.fp32_params):
        copies = copies_of(optimizer)
        optimizer._sync_fp16_grads_to_fp32 = partial(copy_gradients, optimizer, copies)
        optimizer._sync_fp32_params_to_fp16 = partial(copy_weights, copies)
        optimizer.zero_grad = partial(clear_gradients, optimizer)


def _or_fairseqs(optimizer: Any) -> Callable[..., Tensor]:
    """`clip_gradients`, or fairseq's own for gradients on several devices, of several types, or
    none at all."""
    original = optimizer.clip_grad_norm

    def clip_grad_norm(max_norm: float, aggregate_norm_fn: Any = None) -> Tensor:
        gradients = [p.grad for p in optimizer.params if p.grad is not None]
        kinds = {(grad.device, grad.dtype, grad.layout) for grad in gradients}
        if len(kinds) != 1 or gradients[0].layout != torch.strided:
            return original(max_norm, aggregate_norm_fn)
        return clip_gradients(optimizer, max_norm, aggregate_norm_fn)

    return clip_grad_norm


def _with_multi_tensor_operations(build: Callable) -> Callable:
    """Copies, norm and clearing of gradients by multi-tensor operations: a few kernels in place of
    several for each parameter, with the same numbers."""

    @wraps(build)
    def _build_optimizer(self: Any) -> None:
        build(self)
        if is_ours(self):
            serve(self._optimizer)

    return _build_optimizer


PATCHES = (
    Patch("fairseq.trainer:Trainer", "_build_optimizer", _with_multi_tensor_operations, Scope.OURS),
)
