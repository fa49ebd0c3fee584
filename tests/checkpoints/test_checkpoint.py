"""The value `Checkpoint`: opened once, asked, changed into another one, saved."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints import Checkpoint, average
from admin_nmt.checkpoints.tensors import cast, half_type, leaders, num_parameters, widened
from admin_nmt.errors import UserError


def state(**model: Any) -> dict[str, Any]:
    shared = torch.ones(2, 3)
    return {
        "cfg": {
            "model": Namespace(arch="admin_transformer_tiny", **model),
            "task": {"data": "/nowhere", "source_lang": "de", "target_lang": "en"},
        },
        "args": None,
        "model": {"a": shared, "b": shared, "encoder.version": torch.tensor([3.0])},
        "optimizer_history": [{"num_updates": 7}],
        "last_optimizer_state": {"state": {}},
        "extra_state": {"train_iterator": {"epoch": 9}, "best": 1.0, "ema": {}},
    }


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    torch.save(state(init_type="admin"), tmp_path / "one.pt")
    return Checkpoint.open(tmp_path / "one.pt")


def test_it_says_what_it_is(checkpoint: Checkpoint) -> None:
    assert checkpoint.architecture == "admin_transformer_tiny"
    assert checkpoint.family == "admin_transformer"
    assert checkpoint.languages == ("de", "en")
    assert checkpoint.num_updates == 7
    assert checkpoint.setting("model", "init_type") == "admin"
    assert checkpoint.setting("model", "missing") is None
    assert checkpoint.require_family(("admin_transformer",), "be drawn") == "admin_transformer"
    with pytest.raises(UserError, match=r"one\.pt is of architecture admin_transformer_tiny; only"):
        checkpoint.require_family(("transformer",), "be drawn")


@pytest.mark.parametrize("arch", ["nonsense", None])
def test_unknown_architectures_have_no_family(arch: str | None) -> None:
    content = state() | {"cfg": {"model": {"arch": arch}}}
    assert Checkpoint(Path("x.pt"), content).family is None
    with pytest.raises(UserError, match=f"of architecture {arch or 'unknown'}; only"):
        Checkpoint(Path("x.pt"), content).require_family(("transformer",), "be drawn")


def test_replacing_leaves_the_old_one_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    new = checkpoint.replaced({"c": torch.zeros(1)}, {"init_type": "default", "more": 1})
    assert checkpoint.setting("model", "init_type") == "admin"
    assert set(checkpoint.weights) == {"a", "b", "encoder.version"}
    assert checkpoint.state["last_optimizer_state"] is not None
    new.save(tmp_path / "two.pt")
    again = Checkpoint.open(tmp_path / "two.pt")
    assert again.setting("model", "init_type") == "default"
    assert again.setting("model", "more") == 1
    assert set(again.weights) == {"c"} and again.state["last_optimizer_state"] is None
    # What its training had come to belongs to the old weights; for how long they trained is told.
    assert again.state["extra_state"] == {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}}
    assert again.num_updates == 7


def test_ties_survive_reading_averaging_casting_and_saving(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    mean = average([checkpoint, checkpoint])
    assert leaders(mean.weights)["b"] == "a" and mean.num_updates == 7
    for weights in (cast(mean.weights, torch.float16), widened(mean.weights)):
        assert leaders(weights)["b"] == "a"
        assert num_parameters(weights) == 6  # `encoder.version` is not a parameter
    assert half_type(mean.weights) is None
    assert half_type(cast(mean.weights, torch.bfloat16)) == "bfloat16"
    mean.save(tmp_path / "mean.pt")
    assert leaders(Checkpoint.open(tmp_path / "mean.pt").weights)["b"] == "a"


def test_empty_tensors_are_not_tied() -> None:
    weights = {"a": torch.empty(0, 3), "b": torch.empty(0, 3)}
    assert leaders(weights) == {"a": "a", "b": "b"}


def test_nothing_is_left_where_saving_fails(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*nowhere"):
        checkpoint.save(tmp_path / "nowhere" / "x.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["one.pt"]
