"""`--amp`: what reaches the optimizer are the gradients, divided by the loss scale once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


def optimizer_of(parse: Callable[..., Any], task: Any, arch: str, *options: str) -> Any:
    """A trainer's optimizer under `--amp`, with a loss scale that works on CPUs."""
    from fairseq.trainer import Trainer

    cfg = parse("--amp", "--arch", arch, *options)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    optimizer = Trainer(cfg, task, model, criterion).optimizer
    optimizer._grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return optimizer


@pytest.mark.parametrize("optimizer", ["radam", "admin_fused_adam", "adam"])
@pytest.mark.parametrize("arch", ["admin_transformer_tiny", "transformer_tiny"])
def test_gradients_are_divided_by_the_loss_scale_once(
    parse: Callable[..., Any], task: Any, arch: str, optimizer: str
) -> None:
    """In stock trainings twice, which are left alone."""
    ours = arch.startswith("admin")
    options = ["--init-type", "default"] if ours else []
    served = optimizer_of(parse, task, arch, "--optimizer", optimizer, *options)
    reached: list[float] = []
    parameter = next(p for p in served.optimizer.param_groups[0]["params"] if p.requires_grad)
    inner = served.optimizer

    def look(*_: Any) -> None:
        reached.append(float(parameter.grad.reshape(-1)[0]))

    inner.register_step_pre_hook(look)
    for update in range(2):
        served.zero_grad()
        served.backward((parameter * (update + 1)).sum())
        served.clip_grad_norm(0.0)
        served.step()
    assert reached == ([1.0, 2.0] if ours else [1.0 / 1024, 2.0 / 1024])


def test_an_update_with_infinite_gradients_is_left_out(
    parse: Callable[..., Any], task: Any
) -> None:
    served = optimizer_of(parse, task, "admin_transformer_tiny", "--init-type", "default")
    parameter = next(p for p in served.optimizer.param_groups[0]["params"] if p.requires_grad)
    before = parameter.detach().clone()
    served.backward((parameter * torch.inf).sum())
    served.clip_grad_norm(1.0)
    served.step()
    assert torch.equal(parameter.detach(), before)
    assert served.scaler.get_scale() == 512.0
