"""What is said once of an option reaches every place that depends on it."""

import inspect

import pytest

from admin_nmt.checkpoints import averaging
from admin_nmt.models.config import our_options
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


def test_every_option_has_a_value_for_a_plain_transformer() -> None:
    assert {option.name for option in our_options()} <= plain_options().keys()
    assert plain_options()["init_type"] == "default"
