"""The loss scale of a resumed training changes when it would have without the resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.host.loss_scaler import KEY, RETRIES
from tests.support.training import COMMON, require_equal, train, weights


@pytest.mark.parametrize("precision", ["--fp16", "--memory-efficient-fp16"])
def test_a_resumed_training_raises_the_scale_at_the_same_updates(
    data_bin: Path, tmp_path: Path, precision: str
) -> None:
    options = (precision, "--fp16-init-scale", "4", "--fp16-scale-window", "4")
    if precision != "--fp16":
        options += ("--optimizer", "adam")
    train(data_bin, tmp_path / "whole", 12, *options)
    for updates in (6, 12):
        train(data_bin, tmp_path / "parts", updates, *options)
    whole, parts = (
        load_checkpoint_file(tmp_path / name / "checkpoint_last.pt")["last_optimizer_state"]
        for name in ("whole", "parts")
    )
    assert whole["loss_scale"] == parts["loss_scale"] == 32
    assert whole[KEY] == parts[KEY] and whole[KEY]["_iter"] == 12
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


@pytest.mark.parametrize("stored", [True, False])
def test_amp_keeps_its_scale(parse: Callable[..., Any], task: Any, stored: bool) -> None:
    """A checkpoint of fairseq alone has none."""
    from fairseq.trainer import Trainer

    def build(scale: float, interval: int) -> Any:
        cfg = parse("--amp", "--arch", "admin_transformer_tiny", "--init-type", "default")
        model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
        trainer = Trainer(cfg, task, model, criterion)
        trainer.optimizer._grad_scaler = torch.amp.GradScaler(
            "cpu", init_scale=scale, growth_interval=interval
        )
        return trainer

    first, second = build(1024.0, 3), build(8.0, 5)
    for _ in range(2):
        parameter = first.optimizer.optimizer.param_groups[0]["params"][0]
        first.optimizer.backward(parameter.sum())
        first.optimizer.clip_grad_norm(0.0)
        first.optimizer.step()
    first.consolidate_optimizer()
    state = first.state_dict()["last_optimizer_state"]
    if not stored:
        del state[KEY]
    second.optimizer.load_state_dict(state)
    found = second.optimizer.scaler.state_dict()
    assert found["growth_interval"] == 5  # of the command
    assert found["scale"] == (1024.0 if stored else 8.0)
    assert found["_growth_tracker"] == (2 if stored else 0)


@pytest.mark.parametrize("reset", [False, True])
def test_amp_keeps_how_many_batches_were_tried_again(
    data_bin: Path, tmp_path: Path, parse: Callable[..., Any], task: Any, reset: bool
) -> None:
    """Not beside a new optimizer; a checkpoint of fairseq alone has no number."""
    from fairseq.trainer import Trainer

    train(data_bin, tmp_path, 1, "--amp")
    path = tmp_path / "checkpoint_last.pt"
    state = load_checkpoint_file(path)
    assert state["extra_state"].pop(RETRIES) == 0
    cfg = parse("--amp", *COMMON)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    trainer = Trainer(cfg, task, model, criterion)
    trainer._amp_retries = 1
    torch.save(state, path)
    trainer.load_checkpoint(str(path), reset, reset_lr_scheduler=reset)
    assert trainer._amp_retries == (1 if reset else 0)
    state["extra_state"][RETRIES] = 2
    torch.save(state, path)
    trainer.load_checkpoint(str(path), reset, reset_lr_scheduler=reset)
    assert trainer._amp_retries == (1 if reset else 2)
    trainer.consolidate_optimizer()
    assert trainer.state_dict()["extra_state"][RETRIES] == trainer._amp_retries
