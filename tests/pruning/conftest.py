"""Shared: tiny models with random weights everywhere, as `LoadedModel`."""

import functools
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.modules.head_names import Head
from tests.support.models import randomise


@pytest.fixture(scope="session")
def loaded(build: Callable[..., Any], task: Any) -> Callable[..., Any]:
    """`loaded(*options, seed=1)`: a random tiny model with the data of the suite."""
    from admin_nmt.pruning.loading import LoadedModel
    from admin_nmt.pruning.records import fingerprint

    def load(*options: str, seed: int = 1) -> Any:
        model = build(*options, seed=seed).eval().requires_grad_(False)
        randomise(model, seed, also=("omega", "alpha"))
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
