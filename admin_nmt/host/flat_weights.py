"""One flat float32 copy of the weights in 16-bit trainings of our models.

A deep model has more than a thousand parameters. With a float32 copy of each, an update goes over all
of them in Python for the norm, the scaling and the optimizer's step, which takes longer than the
arithmetic. fairseq has one flat copy for `--fp16` on GPUs alone; here `--bf16` and CPUs have one as
well, with every optimizer that treats each element by itself. `--fp16-no-flatten-grads` keeps the
copies apart.

Checkpoints of `--bf16` runs have the moments of each parameter, as fairseq writes them, and moments of
either form load into an optimizer of the other.
"""

import copy
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from admin_nmt.host.ours import is_our_architecture
from admin_nmt.host.patch import Patch, Scope

#: Marks of parameters that an optimizer treats apart from the others.
_APART = ("expert", "base_expert", "param_group", "optim_overrides")


def flat_copy(parameters: Sequence[Tensor]) -> nn.Parameter:
    """The values of `parameters` in a row, in float32, with a gradient of zeros."""
    flat = nn.Parameter(torch.cat([p.detach().reshape(-1).float() for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    return flat


def _wants_flat_copy(cfg: Any, parameters: Sequence[Tensor]) -> bool:
    """Whether a training's float32 weights can be flat, and fairseq would not make them so itself."""
    if not is_our_architecture(getattr(getattr(cfg, "model", None), "_name", None)):
        return False
    distributed = cfg.distributed_training
    return (
        len({p.device for p in parameters}) == 1
        and (cfg.common.bf16 or parameters[0].device.type == "cpu")
        and not cfg.common.fp16_no_flatten_grads
        and distributed.zero_sharding != "os"
        and distributed.ddp_backend != "fully_sharded"
        and cfg.optimizer._name != "composite"
        and not any(hasattr(p, mark) for p in parameters for mark in _APART)
    )


def _flat_copy_of_weights(build: Callable) -> Callable:
    """`--bf16`, and `--fp16` on CPUs: the float32 weights are one flat vector, as with `--fp16` on GPUs:
    norm, scaling and optimizer's step are one operation, and no loop over parameters."""

    def build_optimizer(cls: Any, cfg: Any, params: Any, **kwargs: Any) -> Any:
        from fairseq import optim

        params = list(params)
        if _wants_flat_copy(cfg, params):
            flat = {params[0].device.index: flat_copy(params)}
            inner = optim.build_optimizer(cfg.optimizer, [flat])
            if inner.supports_flat_params:
                return cls(cfg, params, inner, flat, **kwargs)
        return build.__func__(cls, cfg, params, **kwargs)  # type: ignore[attr-defined]

    return classmethod(build_optimizer)  # type: ignore[return-value]


def _is_counter(value: Any) -> bool:
    """Whether a value of an optimizer's state is a number, and no moment of every element."""
    return not isinstance(value, Tensor) or value.dim() == 0


def _require_sizes(found: Sequence[Tensor], shapes: Sequence[torch.Size]) -> None:
    """Moments must be those of these parameters; the text is PyTorch's, to which `errors` has a line."""
    if [moment.shape for moment in found] != list(shapes):
        raise ValueError(
            "loaded state dict contains a parameter group of parameters of other sizes"
        )


def moments_of_each(state: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """The state of an optimizer over a flat vector as that of one over `parameters`, in their order.

    Raises:
        ValueError: the vector is longer or shorter than all parameters.
    """
    sizes = [p.numel() for p in parameters]
    stored = state["state"].get(0, {})
    found: dict[int, dict[str, Any]] = {n: {} for n in range(len(parameters) if stored else 0)}
    for name, value in stored.items():
        if _is_counter(value):  # one of its own for each: an optimizer counts them up in place
            values = [copy.deepcopy(value) for _ in parameters]
        else:
            _require_sizes([value], [torch.Size([sum(sizes)])])
            values = [v.view_as(p) for v, p in zip(value.split(sizes), parameters, strict=True)]
        for n, one in enumerate(values):
            found[n][name] = one
    group = state["param_groups"][0] | {"params": list(range(len(parameters)))}
    return state | {"state": found, "param_groups": [group]}


def moments_of_all(state: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """The state of an optimizer over `parameters` as that of one over all of them in a row.

    A parameter without state, which had no gradient yet, has moments of zero. Of counters that differ
    the largest stays.

    Raises:
        ValueError: a moment is not of the size of its parameter.
    """
    stored = [state["state"].get(n, {}) for n in range(len(parameters))]
    found: dict[str, Any] = {}
    for name in next(filter(None, stored), {}):
        like = next(one[name] for one in stored if one)
        if _is_counter(like):
            found[name] = max(one[name] for one in stored if one)
        else:
            moments = [
                one[name] if one else like.new_zeros(p.shape)
                for one, p in zip(stored, parameters, strict=True)
            ]
            _require_sizes(moments, [p.shape for p in parameters])
            found[name] = torch.cat([moment.reshape(-1) for moment in moments])
    group = state["param_groups"][0] | {"params": [0]}
    return state | {"state": {0: found} if found else {}, "param_groups": [group]}


def _with_moments_of_each(state_dict: Callable) -> Callable:
    """`--bf16`: checkpoints keep the moments of each parameter, as without the flat copy."""

    @wraps(state_dict)
    def wrapped(self: Any) -> dict[str, Any]:
        state = state_dict(self)
        if self.has_flat_params and self.scaler is None and len(state["param_groups"]) == 1:
            return moments_of_each(state, self.fp16_params)
        return state

    return wrapped


def _from_either_form(load_state_dict: Callable) -> Callable:
    """A 16-bit training goes on from the moments of each parameter and from those of a flat copy,
    whichever it has itself: from `--fp16` with `--bf16`, on a CPU or with `--fp16-no-flatten-grads`, and
    the other way round. Moments of another number of values are refused before the first update."""

    @wraps(load_state_dict)
    def wrapped(self: Any, state_dict: dict[str, Any], optimizer_overrides: Any = None) -> None:
        groups, each = state_dict["param_groups"], len(self.fp16_params)
        if len(groups) == 1 and each > 1:
            stored = len(groups[0]["params"])
            if self.has_flat_params and stored == each:
                state_dict = moments_of_all(state_dict, self.fp16_params)
            elif not self.has_flat_params and stored == 1:
                state_dict = moments_of_each(state_dict, self.fp16_params)
            elif stored == 1:  # flat on both sides: PyTorch compares numbers of tensors only
                moments_of_each(state_dict, self.fp16_params)
        load_state_dict(self, state_dict, optimizer_overrides)

    return wrapped


_OPTIMIZER = "fairseq.optim.fp16_optimizer:FP16Optimizer"
PATCHES = (
    Patch(_OPTIMIZER, "build_optimizer", _flat_copy_of_weights, Scope.OURS),
    Patch(_OPTIMIZER, "state_dict", _with_moments_of_each, Scope.OURS),
    Patch(_OPTIMIZER, "load_state_dict", _from_either_form, Scope.FAILURES),
)
