"""`--optimizer radam`: rectified Adam (Liu et al., arXiv 1908.03265) over `torch.optim.RAdam`.

All ADMIN recipes use it. Weight decay is decoupled, as in the authors' implementation and in
fairseq's own `adam`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, List  # noqa: UP035

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.radam import radam

from admin_nmt.optim.options import adam_arguments


def rectification(step: int, beta2: float) -> float | None:
    """r_t of RAdam (arXiv 1908.03265, algorithm 2), or None while the variance is not tractable.

    Args:
        step: t, counted from 1.
        beta2: decay of the second moment.
    """
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * step * beta2**step / (1 - beta2**step)
    if rho <= 5:
        return None
    numerator = (rho - 4) * (rho - 2) * rho_inf
    return math.sqrt(numerator / ((rho_inf - 4) * (rho_inf - 2) * rho))


class RAdam(torch.optim.RAdam):
    """`torch.optim.RAdam` with two additions: a fused step on the CPU, half-precision parameters.

    PyTorch has no fused RAdam, but once r_t is defined RAdam is AdamW with other numbers: learning
    rate `lr * r_t`, `eps / sqrt(1 - beta2^t)`, weight decay divided by r_t. A deep model has more
    than a thousand small parameters; one call in place of a Python loop makes its step three times
    faster on a CPU. On a GPU PyTorch's own multi-tensor step is used.

    For `--memory-efficient-fp16` the parameters are half precision and there is no float32 copy of
    them. Moments in half precision would underflow, so they are kept in float32, and each step is
    done on float32 copies that are rounded back into the parameters.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update, equal to that of `torch.optim.RAdam` up to rounding."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        half = [p.dtype in (torch.float16, torch.bfloat16) for p in parameters]
        targets = [p.float() if h else p for p, h in zip(parameters, half, strict=True)]
        for parameter, target in zip(parameters, targets, strict=True):
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
            for moment in ("exp_avg", "exp_avg_sq"):
                # fairseq's `--memory-efficient-*` puts the moments of a checkpoint here as they are: on
                # the CPU. `to` returns what is in place already.
                state[moment] = (
                    state[moment].to(target)
                    if moment in state
                    else torch.zeros_like(target, memory_format=torch.preserve_format)
                )
        self._update(group, parameters, targets)
        for parameter, target, is_half in zip(parameters, targets, half, strict=True):
            if is_half:
                parameter.copy_(target)

    def _update(
        self, group: dict[str, Any], parameters: list[Tensor], targets: list[Tensor]
    ) -> None:
        """Change `targets`, the float32 form of `parameters`, in place."""
        states = [self.state[p] for p in parameters]
        steps = [state["step"] for state in states]
        beta1, beta2 = group["betas"]
        step = int(steps[0]) + 1
        rect = rectification(step, beta2)
        lists = (
            targets,
            [p.grad.to(t.dtype) for p, t in zip(parameters, targets, strict=True)],  # type: ignore[union-attr]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
        )
        on_cpu = all(target.device.type == "cpu" for target in targets)
        if rect is None or not on_cpu or bool((torch.stack(steps) != steps[0]).any()):
            radam(
                *lists, steps, decoupled_weight_decay=True, beta1=beta1, beta2=beta2,
                lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
            )  # fmt: skip
            return
        adamw(
            *lists, [], steps, fused=True, foreach=False, amsgrad=False, maximize=False,
            beta1=beta1, beta2=beta2, lr=group["lr"] * rect,
            weight_decay=group["weight_decay"] / rect,
            eps=group["eps"] / math.sqrt(1 - beta2**step),
        )  # fmt: skip


@dataclass
class FairseqRAdamConfig(FairseqDataclass):
    """Options of `--optimizer radam`."""

    adam_betas: Any = field(
        default=(0.9, 0.999), metadata={"help": "betas of the moments (named as for adam)"}
    )
    adam_eps: float = field(default=1e-8, metadata={"help": "epsilon (named as for adam)"})
    weight_decay: float = field(default=0.0, metadata={"help": "weight decay (decoupled)"})
    # fairseq makes options from the annotations and reads only the old spelling of lists.
    lr: List[float] = II("optimization.lr")  # noqa: RUF009, UP006


@register_optimizer("radam", dataclass=FairseqRAdamConfig)
class FairseqRAdam(FairseqOptimizer):
    """fairseq optimizer over `RAdam`."""

    def __init__(self, cfg: FairseqRAdamConfig, params: list[Tensor]) -> None:
        super().__init__(cfg)
        self._optimizer = RAdam(params, decoupled_weight_decay=True, **self.optimizer_config)

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """Arguments that override those in a checkpoint, so that training can go on with others."""
        return adam_arguments(self.cfg)

    @property
    def supports_memory_efficient_fp16(self) -> bool:
        """Half-precision parameters are stepped in float32."""
        return True

    @property
    def supports_flat_params(self) -> bool:
        """Every element is updated by itself, so parameters may be one flat vector."""
        return True
