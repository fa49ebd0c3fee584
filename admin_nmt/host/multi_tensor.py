"""Gradients and weights of many small parameters handled together in trainings of our models.

A model of 60 and 12 layers has more than a thousand parameters. Around each update fairseq copies
gradients to float32, takes their norm, clears them and copies weights back in Python loops over the
parameters (the copies for `--fp16` as well, all four for `--bf16`, whose float32 copy is not flat):
thousands of kernels of a few microseconds each, launched one by one. PyTorch's multi-tensor operations
do the same with a few launches. The numbers are the same. On a GPU the float32 gradients exist only
from the end of the backward pass to the end of the update: activations need the memory before.
"""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

#: Elements of a float32 gradient from which freeing it is worth the host's time: matrices, no vectors.
_LARGE = 1 << 16


def _freed(master: Tensor) -> bool:
    """Whether the gradient of a float32 weight is freed after an update. On CPUs new memory costs more
    than clearing the old."""
    return master.is_cuda and master.numel() >= _LARGE


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy one list of tensors into another of the same shapes."""
    if targets:
        torch._foreach_copy_(list(targets), list(sources))


def _flat_parts(optimizer: Any, part: Callable[[Any], Tensor], trained: bool) -> list[tuple]:
    """(parameter, its piece of the flat float32 copy) of a `--fp16` optimizer, shaped alike.

    Args:
        part: what of the flat copy, its data or its gradient.
        trained: only parameters that require a gradient (as fairseq does for gradients).
    """
    found = []
    for device, flat in optimizer.fp32_params.items():
        parameters = [
            p for p in optimizer.fp16_params
            if p.device.index == device and (p.requires_grad or not trained)
        ]  # fmt: skip
        sizes = [p.numel() for p in parameters]
        pieces = part(flat)[: sum(sizes)].split(sizes)
        found += [(p, piece.view_as(p)) for p, piece in zip(parameters, pieces, strict=True)]
    return found


@torch.no_grad()
def copy_gradients(optimizer: Any) -> None:
    """fairseq's `_sync_fp16_grads_to_fp32`: the gradients of the 16-bit weights, in float32."""
    if not optimizer._needs_sync:
        return
    if optimizer.has_flat_params:
        for flat in optimizer.fp32_params.values():
            if flat.grad is None:
                flat.grad = torch.zeros_like(flat.data)
        pairs = _flat_parts(optimizer, lambda flat: flat.grad.data, trained=True)
    else:
        both = zip(optimizer.fp16_params, optimizer.fp32_params, strict=True)
        trained = [(p, p32) for p, p32 in both if p.requires_grad]
        for _, p32 in trained:
            if p32.grad is None:
                p32.grad = torch.empty_like(p32.data)
        pairs = [(p, p32.grad) for p, p32 in trained]
    for p, target in pairs:
        if p.grad is None:
            target.zero_()
    with_gradient = [(target, p.grad) for p, target in pairs if p.grad is not None]
    _copy([target for target, _ in with_gradient], [grad for _, grad in with_gradient])
    optimizer._needs_sync = False


@torch.no_grad()
def copy_weights(optimizer: Any) -> None:
    """fairseq's `_sync_fp32_params_to_fp16`: the rounded weights after a step."""
    if optimizer.has_flat_params:
        pairs = _flat_parts(optimizer, lambda flat: flat.data, trained=False)
    else:
        both = zip(optimizer.fp16_params, optimizer.fp32_params, strict=True)
        pairs = [(p, p32.data) for p, p32 in both if p.requires_grad]
    _copy([p.data for p, _ in pairs], [source for _, source in pairs])


def clear_gradients(optimizer: Any) -> None:
    """fairseq's `zero_grad` of 16-bit trainings; large float32 gradients on GPUs are freed."""
    for p in optimizer.fp16_params:
        p.grad = None
    if optimizer.has_flat_params:
        held = list(optimizer.fp32_params.values())
    else:
        held = list(optimizer.fp32_params)
    for p32 in held:
        if _freed(p32):
            p32.grad = None
    gradients = [p32.grad for p32 in held if p32.grad is not None]
    if gradients:
        torch._foreach_zero_(gradients)
    optimizer._needs_sync = False
    if optimizer.scaler is not None:
        optimizer._multiply_factor = 1.0 / float(optimizer.scaler.loss_scale)


@torch.no_grad()
def clip_gradients(
    optimizer: Any, max_norm: float, aggregate_norm_fn: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """fairseq's `clip_grad_norm`: the norm of all gradients, in float32, which are scaled down to
    `max_norm` if that is above 0 and they are larger."""
    gradients = [p.grad for p in optimizer.params if p.grad is not None]
    norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
    total = torch.linalg.vector_norm(torch.stack(norms))
    if aggregate_norm_fn is not None:
        total = aggregate_norm_fn(total)
    if max_norm > 0:
        torch._foreach_mul_(gradients, (max_norm / (total + 1e-6)).clamp_(max=1))
    return total


def serve(optimizer: Any) -> None:
    """Let a fairseq optimizer use the functions above where they serve it."""
    from fairseq.optim.fp16_optimizer import FP16Optimizer

    inner = optimizer
    for name in ("fp32_optimizer", "wrapped_optimizer"):
        inner = getattr(optimizer, name, inner)
    parameters = list(inner.params)
    if any(hasattr(p, "expert") for p in parameters):
        return  # fairseq counts those of mixtures apart
    if len(parameters) > 1:
        inner.clip_grad_norm = _or_fairseqs(inner)
    if isinstance(optimizer, FP16Optimizer) and not torch.is_tensor(optimizer.fp32_params):
        optimizer._sync_fp16_grads_to_fp32 = partial(copy_gradients, optimizer)
        optimizer._sync_fp32_params_to_fp16 = partial(copy_weights, optimizer)
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
