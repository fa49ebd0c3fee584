"""What is said once of an option reaches every place that depends on it."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from admin_nmt.checkpoints import averaging
from admin_nmt.models import heads as model_heads
from admin_nmt.models.config import our_options
from admin_nmt.modules.heads import Head
from admin_nmt.pruning import heads
from admin_nmt.pruning.loading import plain_options

MEANING = [option.name for option in our_options() if option.metadata["means_other_weights"]]


def test_every_option_says_what_the_package_must_know() -> None:
    for option in our_options():
        assert {"help", "means_other_weights", "folds", "plain"} <= set(option.metadata), (
            option.name
        )


@pytest.mark.parametrize("name", MEANING)
def test_checkpoints_that_mean_other_functions_are_never_averaged(name: str) -> None:
    assert name in averaging._SETTINGS


@pytest.mark.parametrize("name", [name for name in MEANING if name != "init_type"])
def test_scores_of_heads_belong_to_one_function(name: str) -> None:
    """Models of two residual schemes never have the same weights after training."""
    assert f'"{name}"' in inspect.getsource(heads.fingerprint)


def test_heads_per_layer_are_parsed_once(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = []
    parse = model_heads.parse_layout
    monkeypatch.setattr(model_heads, "parse_layout", lambda text: texts.append(text) or parse(text))
    given = "E:3,4 A:2,4 D:4,0"
    model = build("--heads-per-layer", given, "--head-mask", "A:1:2")
    model.load_state_dict(model.state_dict())
    assert texts == [given]
    assert model.cfg.layout == {"E": (3, 4), "A": (2, 4), "D": (4, 0)}
    assert model.cfg.masked_heads == (Head("A", 1, 2),)


def test_every_option_has_a_value_for_a_plain_transformer() -> None:
    assert {option.name for option in our_options()} <= plain_options().keys()
    assert plain_options()["init_type"] == "default"
