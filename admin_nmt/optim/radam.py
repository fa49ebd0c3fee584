"""`--optimizer radam`: rectified Adam (Liu et al., arXiv 1908.03265) over `torch.optim.RAdam`.

All ADMIN recipes use it. Weight decay is decoupled, as in the authors' implementation and in
fairseq's own `adam`.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, List  # noqa: UP035

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II, OmegaConf
from torch import Tensor
from torch.optim.radam import radam


class RAdam(torch.optim.RAdam):
    """`torch.optim.RAdam` that also steps float16 and bfloat16 parameters.

    For `--memory-efficient-fp16` the parameters are half precision and there is no float32 copy of
    them. Moments in half precision would underflow, so they are kept in float32, and each step is
    done on float32 copies that are rounded back into the parameters.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; the arithmetic is `torch.optim.radam.radam`."""
        if all(
            p.dtype in (torch.float32, torch.float64)
            for g in self.param_groups
            for p in g["params"]
        ):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_in_float32(group)
        return loss

    def _step_in_float32(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        copies = [p.float() for p in parameters]
        for parameter, copy in zip(parameters, copies, strict=True):
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(copy)
                state["exp_avg_sq"] = torch.zeros_like(copy)

        def moments(name: str) -> list[Tensor]:
            return [self.state[p][name] for p in parameters]

        beta1, beta2 = group["betas"]
        radam(
            copies,
            [p.grad.float() for p in parameters],
            moments("exp_avg"),
            moments("exp_avg_sq"),
            moments("step"),
            decoupled_weight_decay=True,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
        )
        for parameter, copy in zip(parameters, copies, strict=True):
            parameter.copy_(copy)


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
        betas = self.cfg.adam_betas
        if isinstance(betas, str):
            betas = tuple(float(number) for number in betas.strip("()[] ").split(","))
        elif OmegaConf.is_config(betas):
            betas = OmegaConf.to_container(betas)
        lr = self.cfg.lr
        return {
            "lr": lr[0] if isinstance(lr, Collection) else lr,
            "betas": tuple(betas),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
        }

    @property
    def supports_memory_efficient_fp16(self) -> bool:
        """Half-precision parameters are stepped in float32."""
        return True

    @property
    def supports_flat_params(self) -> bool:
        """Every element is updated by itself, so parameters may be one flat vector."""
        return True
