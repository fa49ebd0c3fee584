"""Checkpoints of models with random weights, written the way fairseq's trainer writes them."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.models import randomise, spread_omegas, trainer_state


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    """`save(model, cfg, path, **entries)`: a checkpoint of `model`, configured by `cfg`."""

    def write(model: Any, cfg: Any, path: Path, **entries: Any) -> Path:
        torch.save(trainer_state(model, cfg, **entries), path)
        return path

    return write


@pytest.fixture(scope="session")
def make(
    parse: Callable[..., Any], task: Any, save: Callable[..., Path]
) -> Callable[..., tuple[Any, Path]]:
    """`make(path, *options, seed=1)`: a random model in evaluation mode and its checkpoint."""
    parse_once = cache(parse)

    def make_checkpoint(
        path: Path, *options: str, seed: int = 1, **entries: Any
    ) -> tuple[Any, Path]:
        torch.manual_seed(seed)
        cfg = parse_once(*options)
        model = task.build_model(copy.deepcopy(cfg.model)).eval()
        spread_omegas(model, randomise(model, seed))
        return model, save(model, cfg, path, **entries)

    return make_checkpoint
