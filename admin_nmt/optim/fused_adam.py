"""`--optimizer admin_fused_adam`: Adam with decoupled weight decay in one kernel.

fairseq's own `adam` loops over parameters in Python unless NVIDIA apex is installed, which costs a
deep model a good part of its step. Here NVIDIA's FusedAdam is used where it is installed and the
parameters are on a GPU, and PyTorch's fused AdamW otherwise (CPU and GPU). Options and results are
those of `adam`, up to rounding, but for `--use-old-adam`, `--fp16-adam-stats` and
`--memory-efficient-fp16` or `-bf16`, which are refused; `adam` itself is untouched.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import FairseqAdamConfig
from torch import Tensor

from admin_nmt.errors import UsageError
from admin_nmt.optim.options import adam_arguments

logger = logging.getLogger(__name__)


def nvidia_fused_adam() -> Callable[..., torch.optim.Optimizer] | None:
    """NVIDIA apex's FusedAdam, or None: PyPI's unrelated `apex` has no `apex.optimizers`, and NVIDIA's
    can be built without the kernels."""
    try:
        from apex.multi_tensor_apply import multi_tensor_applier
        from apex.optimizers import FusedAdam
    except Exception:  # the other apex may fail in any way when it is imported
        return None
    return FusedAdam if multi_tensor_applier.available else None


def state_for(own_groups: Sequence[Mapping[str, Any]], stored: dict[str, Any]) -> dict[str, Any]:
    """The state of either implementation, as the one with the groups `own_groups` keeps it: PyTorch's
    counts the steps of each parameter, apex those of a group."""
    if len(own_groups) != len(stored["param_groups"]):
        return stored  # PyTorch says so
    entries = {number: dict(entry) for number, entry in stored["state"].items()}
    groups = []
    for own, group in zip(own_groups, stored["param_groups"], strict=True):
        held = [entries[number] for number in group["params"] if number in entries]
        step = group.get("step", max((entry.get("step", 0) for entry in held), default=0))
        kept = {name: group.get(name, value) for name, value in own.items() if name != "step"}
        if "bias_correction" in own:  # apex
            kept |= {"step": int(step)} if held else {}
            for entry in held:
                entry.pop("step", None)
        else:
            for entry in held:
                entry.setdefault("step", torch.tensor(float(step)))
        groups.append(kept | {"params": group["params"]})
    return stored | {"state": entries, "param_groups": groups}


@dataclass
class FairseqFusedAdamConfig(FairseqAdamConfig):
    """The options of `adam`."""


@register_optimizer("admin_fused_adam", dataclass=FairseqFusedAdamConfig)
class FairseqFusedAdam(FairseqOptimizer):
    """fairseq optimizer over a fused AdamW.

    Raises:
        UsageError: options of `adam` that choose its implementation.
    """

    def __init__(self, cfg: FairseqFusedAdamConfig, params: Collection[Tensor]) -> None:
        super().__init__(cfg)
        for option in ("use_old_adam", "fp16_adam_stats"):
            if getattr(cfg, option, False):
                raise UsageError(
                    f"--{option.replace('_', '-')} does not go with --optimizer admin_fused_adam: leave "
                    "it out, or take --optimizer adam"
                )
        params = list(params)
        apex_adam = nvidia_fused_adam() if all(p.is_cuda for p in params) else None
        if apex_adam is not None:
            logger.info("using NVIDIA apex FusedAdam")
            self._optimizer = apex_adam(params, adam_w_mode=True, **self.optimizer_config)
        else:
            self._optimizer = torch.optim.AdamW(params, fused=True, **self.optimizer_config)

    def load_state_dict(
        self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None
    ) -> None:
        """Go on from a checkpoint of either implementation."""
        own_groups = self.optimizer.state_dict()["param_groups"]
        super().load_state_dict(state_for(own_groups, state_dict), optimizer_overrides)

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """Arguments that override those in a checkpoint, so that training can go on with others."""
        return adam_arguments(self.cfg)

    @property
    def supports_flat_params(self) -> bool:
        """Every element is updated by itself, so parameters may be one flat vector."""
        return True
