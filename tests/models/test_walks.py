"""Walks over all modules in every update: quicker than fairseq's and PyTorch's, with the same end."""

from collections.abc import Callable
from typing import Any

from torch import nn

from admin_nmt.modules.walk import all_modules


class Listener(nn.Module):
    """Wants to know the number of the update, as modules with a schedule do."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[int] = []

    def set_num_updates(self, num_updates: int) -> None:
        """Called by the model."""
        self.heard.append(num_updates)


def test_all_modules_are_those_of_pytorch(build: Callable[..., Any]) -> None:
    model = build("--share-all-embeddings")
    found = all_modules(model)
    assert len(found) == len(set(found)) and set(found) == set(model.modules())


def test_missing_and_shared_modules_count_once() -> None:
    shared = nn.Linear(1, 1)
    root = nn.Sequential(shared, nn.Sequential(shared))
    root.register_module("missing", None)
    assert set(all_modules(root)) == set(root.modules()) and len(all_modules(root)) == 3


def test_modules_at_any_depth_hear_the_number_of_the_update(build: Callable[..., Any]) -> None:
    model = build()
    listeners = [Listener() for _ in range(3)]
    model.add_module("own", listeners[0])
    model.encoder.layers[0].add_module("own", listeners[1])
    model.decoder.add_module("own", listeners[2])
    for number in (3, 4):
        model.set_num_updates(number)
    assert [listener.heard for listener in listeners] == [[3, 4]] * 3


def test_train_and_eval_reach_modules_that_were_switched_by_themselves(
    build: Callable[..., Any],
) -> None:
    model = build()
    for mode in (True, False, True):
        model.decoder.layers[-1].fc1.train(not mode)
        assert model.train(mode) is model
        assert {module.training for module in model.modules()} == {mode}
    assert model.eval() is model and not any(module.training for module in model.modules())
