"""Shared: tiny models with random weights everywhere, as `LoadedModel`."""

import functools
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.modules.heads import Head


def randomise(model: Any, seed: int) -> None:
    """Random numbers in every parameter: zeros and ones would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "omega", "alpha")) or "layer_norm" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="session")
def checkpoint(parse: Callable[..., Any], task: Any, tmp_path_factory: Any) -> Callable[..., Path]:
    """`checkpoint(*options, seed=1)`: a random model in a file as fairseq's trainer writes it."""
    from omegaconf import OmegaConf

    def save(*options: str, seed: int = 1) -> Path:
        torch.manual_seed(seed)
        cfg = parse(*options)
        model = task.build_model(cfg.model)
        randomise(model, seed)
        state = {
            "args": None,
            "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
            "model": model.state_dict(),
            "optimizer_history": [{"criterion_name": "x", "optimizer_name": "x",
                                   "lr_scheduler_state": {}, "num_updates": 3}],
            "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0},
                            "val_loss": None},
            "last_optimizer_state": {"state": torch.zeros(5)},
            "task_state": {},
        }  # fmt: skip
        path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
        torch.save(state, path)
        return path

    return save


@pytest.fixture(scope="session")
def loaded(build: Callable[..., Any], task: Any) -> Callable[..., Any]:
    """`loaded(*options, seed=1)`: a random tiny model with the data of the suite."""
    from admin_nmt.pruning.heads import fingerprint
    from admin_nmt.pruning.loading import LoadedModel

    def load(*options: str, seed: int = 1) -> Any:
        model = build(*options, seed=seed).eval().requires_grad_(False)
        randomise(model, seed)
        mark = fingerprint(model)
        return LoadedModel(Checkpoint(Path("random.pt"), {}), model, task, model.cfg.layout, mark)

    return load


@pytest.fixture(scope="session")
def without_heads(parse: Callable[..., Any], task: Any) -> Callable[..., Any]:
    """`without_heads(loaded, removed, *options)`: a model without these heads."""
    from admin_nmt.pruning.removal import remove_heads

    options_of = functools.cache(parse)

    def remove(source: Any, removed: set[Head], *options: str) -> Any:
        state, layout = remove_heads(source.model.state_dict(), source.model.cfg, removed)
        settings = vars(options_of(*options).model) | {"heads_per_layer": layout}
        model = task.build_model(Namespace(**settings)).eval()
        model.load_state_dict(state)
        return model

    return remove
