"""A flat float32 copy of the weights trains as copies one by one do, and their checkpoints are alike."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from admin_nmt.host import errors, flat_weights
from tests.support.training import train
from tests.support.training import weights as weights_of
from tests.support.updates import build_optimizer, update

APART = ("--fp16-no-flatten-grads",)


def require_equal(one: Any, other: Any) -> None:
    """Compare nested states."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            require_equal(one[key], other[key])
    elif isinstance(one, Tensor):
        assert one.shape == other.shape and one.dtype == other.dtype
        torch.testing.assert_close(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["adam", "admin_fused_adam", "radam", "nag", "adamax"])
def test_updates_and_checkpoints_equal_those_one_by_one(
    parse: Callable[..., Any], optimizer: str, precision: str
) -> None:
    options = ("--optimizer", optimizer, f"--{precision}", "--weight-decay", "0.1")
    flat, ours = build_optimizer(parse(*options))
    each, theirs = build_optimizer(parse(*options, *APART))
    assert flat.has_flat_params and not each.has_flat_params
    for seed in range(7):  # beyond the first steps, which RAdam does not rectify
        for one, other in zip(update(flat, ours, seed), update(each, theirs, seed), strict=True):
            torch.testing.assert_close(one, other)
    state = flat.state_dict()
    if precision == "fp16":  # fairseq's form on GPUs
        assert list(state["state"]) == [0]
        state = flat_weights.moments_of_each(state, ours)
    require_equal(state, each.state_dict())


@pytest.mark.parametrize("to", ["flat", "one by one"])
@pytest.mark.parametrize("optimizer", ["adam", "admin_fused_adam", "radam"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_moments_of_either_form_load_into_the_other(
    parse: Callable[..., Any], optimizer: str, precision: str, to: str
) -> None:
    options = ("--optimizer", optimizer, f"--{precision}")
    forms = {"flat": (), "one by one": APART}
    second = forms.pop(to)
    (first,) = forms.values()
    before, weights = build_optimizer(parse(*options, *first))
    for seed in range(6):
        update(before, weights, seed)
    after, others = build_optimizer(parse(*options, *second))
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    after._multiply_factor = before._multiply_factor
    masters = [p.detach().reshape(-1) for p in before.fp32_optimizer.params]
    sizes = [p.numel() for p in after.fp32_optimizer.params]
    with torch.no_grad():
        for p, master in zip(
            after.fp32_optimizer.params, torch.cat(masters).split(sizes), strict=True
        ):
            p.copy_(master.view_as(p))
    for seed in range(6, 9):
        found, expected = update(after, others, seed), update(before, weights, seed)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_a_parameter_without_state_has_moments_of_zero() -> None:
    parameters = [torch.zeros(2), torch.zeros(1, 3), torch.zeros(1)]
    moments = {n: torch.full_like(parameters[n], n) for n in (1, 2)}
    state = {
        "state": {n: {"step": 3 + n, "exp_avg": moment} for n, moment in moments.items()},
        "param_groups": [{"lr": 1.0, "params": [0, 1, 2]}],
        "loss_scale": 2.0,
    }
    joined = flat_weights.moments_of_all(state, parameters)
    assert joined["state"][0]["step"] == 5 and joined["loss_scale"] == 2.0
    assert joined["state"][0]["exp_avg"].tolist() == [0, 0, 1, 1, 1, 2]
    assert joined["param_groups"] == [{"lr": 1.0, "params": [0]}]


def test_counters_are_counted_up_by_themselves() -> None:
    parameters = [torch.zeros(2), torch.zeros(3)]
    state = {
        "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(5)}},
        "param_groups": [{"params": [0]}],
    }
    apart = flat_weights.moments_of_each(state, parameters)["state"]
    apart[0]["step"] += 1
    assert [apart[n]["step"].item() for n in (0, 1)] == [2, 1]
    assert [apart[n]["exp_avg"].shape for n in (0, 1)] == [(2,), (3,)]


def test_a_new_optimizer_has_no_state(parse: Callable[..., Any]) -> None:
    flat, _ = build_optimizer(parse("--bf16"))
    each, _ = build_optimizer(parse("--bf16", *APART))
    require_equal(flat.state_dict(), each.state_dict())
    flat.load_state_dict(each.state_dict())
    each.load_state_dict(flat.state_dict())


@pytest.mark.parametrize("change", ["joined", "split"])
def test_moments_of_other_sizes_are_refused_as_by_pytorch(change: str) -> None:
    parameters = [torch.zeros(2), torch.zeros(3)]
    each = {n: {"exp_avg": torch.zeros(2)} for n in (0, 1)}
    whole = {0: {"exp_avg": torch.zeros(4)}}
    groups = [{"params": [0, 1] if change == "joined" else [0]}]
    function = {"joined": flat_weights.moments_of_all, "split": flat_weights.moments_of_each}[
        change
    ]
    with pytest.raises(ValueError, match="loaded state dict contains a parameter group"):
        function(
            {"state": each if change == "joined" else whole, "param_groups": groups}, parameters
        )


def test_a_flat_vector_of_other_parameters_is_refused_before_an_update(
    parse: Callable[..., Any],
) -> None:
    """PyTorch sees one tensor on both sides: with omegas trained or frozen, for example."""
    cfg = parse("--optimizer", "adam", "--fp16")
    fewer, weights = build_optimizer(cfg)
    more = build_optimizer(cfg, [*weights, nn.Parameter(torch.ones(2, dtype=torch.float16))])[0]
    update(fewer, weights, 0)
    with pytest.raises(ValueError, match="loaded state dict contains a parameter group") as caught:
        more.load_state_dict(fewer.state_dict())
    assert "--admin-freeze-omega, for example" in str(errors.describe(caught.value))


def test_what_cannot_be_flat_stays_one_by_one(parse: Callable[..., Any]) -> None:
    for options in (
        ("--optimizer", "adafactor"),
        ("--zero-sharding", "os"),
        ("--arch", "transformer_tiny"),
        APART,
    ):
        optimizer, weights = build_optimizer(parse("--bf16", *options))
        assert len(optimizer.fp32_params) == len(weights), options
    for group, name, value in (
        ("distributed_training", "ddp_backend", "fully_sharded"),
        ("optimizer", "_name", "composite"),
    ):
        cfg = parse("--bf16")
        assert flat_weights._wants_flat_copy(cfg, weights)
        cfg[group][name] = value
        assert not flat_weights._wants_flat_copy(cfg, weights), value
    elsewhere = nn.Parameter(weights[0].detach().to("meta"))
    assert not flat_weights._wants_flat_copy(parse("--bf16"), [*weights, elsewhere])
    weights[1].optim_overrides = {}  # type: ignore[attr-defined]
    assert not flat_weights._wants_flat_copy(parse("--bf16"), weights)


def test_a_run_goes_on_with_copies_one_by_one_and_back(data_bin: Path, tmp_path: Path) -> None:
    train(data_bin, tmp_path / "whole", 9, "--bf16")
    for updates, options in ((3, ()), (6, APART), (9, ())):
        train(data_bin, tmp_path / "parts", updates, "--bf16", *options)
    for name, value in weights_of(tmp_path / "whole").items():
        torch.testing.assert_close(weights_of(tmp_path / "parts")[name], value)
