"""Weights of a plain fairseq Transformer go only into models that compute the same with them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from admin_nmt.errors import UserError
from admin_nmt.frontdoor import describe


@pytest.fixture(scope="module")
def plain_state(build: Callable[..., Any]) -> Callable[[], dict[str, torch.Tensor]]:
    sizes = "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 32 --decoder-embed-dim 32"
    sizes += " --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64"
    sizes += " --encoder-attention-heads 4 --decoder-attention-heads 4"
    stock = build("--arch", "transformer", *sizes.split())
    return lambda: {name: value.clone() for name, value in stock.state_dict().items()}


@pytest.mark.parametrize("init_type", ["admin-log", "admin-const", "deepnorm", "rezero"])
def test_other_constants_on_shortcuts_are_refused(
    build: Callable[..., Any], plain_state: Callable[[], dict[str, torch.Tensor]], init_type: str
) -> None:
    """They would be loaded without a word and compute something else: a first factor is no weight."""
    model = build("--init-type", init_type)
    with pytest.raises(UserError, match=f"--init-type {init_type} cannot start from") as caught:
        model.load_state_dict(plain_state())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("init_type", ["admin", "default"])
def test_plain_shortcuts_take_them(
    build: Callable[..., Any], plain_state: Callable[[], dict[str, torch.Tensor]], init_type: str
) -> None:
    build("--init-type", init_type).load_state_dict(plain_state())


@pytest.mark.parametrize(
    "init_type", ["admin", "admin-log", "admin-const", "deepnorm", "rezero", "default"]
)
def test_every_model_takes_its_own_weights(build: Callable[..., Any], init_type: str) -> None:
    source, target = build("--init-type", init_type, seed=1), build("--init-type", init_type)
    target.load_state_dict(source.state_dict())
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])


def test_the_reason_survives_fairseqs_trainer() -> None:
    """It replaces every exception while loading by "please ensure that the architectures match"."""
    with pytest.raises(Exception, match="architectures match") as caught:
        try:
            raise UserError("the reason")
        except Exception:
            raise Exception("please ensure that the architectures match")  # noqa: B904
    assert describe(caught.value) == "the reason"
    assert describe(Exception("please ensure that the architectures match")) is None
