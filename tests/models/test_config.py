"""What is said once of an option reaches every place that depends on it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.checkpoints.averaging import require_same_model
from admin_nmt.checkpoints.settings import function_settings
from admin_nmt.errors import UserError
from admin_nmt.host import resuming
from admin_nmt.models import heads as model_heads
from admin_nmt.models.config import function_options, our_options
from admin_nmt.modules.head_names import Head
from admin_nmt.pruning import records
from admin_nmt.pruning.loading import plain_options

MEANING = [option.name for option in our_options() if option.metadata["changes_function"]]
ARCH = {"arch": "admin_transformer"}
PLAIN_FINGERPRINT = "ae3718d83f3542402cdaec8374bf058af05c7f2ba3cf18fc82bebabdcbb843a9"


def test_every_option_says_what_the_package_must_know() -> None:
    for option in our_options():
        assert {"help", "changes_function", "folds", "plain"} <= set(option.metadata), option.name


@pytest.mark.parametrize("name", MEANING)
def test_checkpoints_that_mean_other_functions_are_never_averaged(name: str) -> None:
    first, other = (
        Checkpoint(Path(f"{number}.pt"), {"model": {}, "cfg": {"model": model}})
        for number, model in enumerate([ARCH, ARCH | {name: "other"}])
    )
    require_same_model(first, first)
    with pytest.raises(UserError, match=f"{name} other instead of"):
        require_same_model(first, other)


def test_a_newer_option_is_compared_when_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """All options count but those with a rule of their own; a plain checkpoint has the plain value."""
    compare = resuming._require_same_settings
    known = function_settings("admin_transformer")
    assert set(resuming._OWN_RULE) <= known.keys()
    monkeypatch.setattr(resuming, "function_settings", lambda family: known | {"newer": 1})
    one, other = (SimpleNamespace(**known | {"newer": value}) for value in (1, 2))
    compare(other, other, "a.pt", is_stock=False)
    compare(other, one, "a.pt", is_stock=True)  # which has no such option
    for is_stock in (False, True):
        with pytest.raises(UserError, match="trained with --newer 1: with --newer 2 the same"):
            compare(one, other, "a.pt", is_stock=is_stock)


def test_scores_of_heads_belong_to_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """All options count but the scheme: models of two never have the same weights after training."""
    monkeypatch.setattr(records, "function_options", lambda: function_options() | {"newer": 1})

    def digest(**changed: Any) -> str:
        cfg = SimpleNamespace(**function_options() | {"newer": 1} | changed)
        return records.fingerprint(SimpleNamespace(cfg=cfg, state_dict=dict))

    plain = digest()
    assert plain == PLAIN_FINGERPRINT  # files hold fingerprints
    assert digest(init_type="deepnorm") == plain
    names = [*MEANING, "newer"]
    assert len({digest(**{name: "other"}) for name in names}) == len(names)


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
