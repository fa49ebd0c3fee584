"""16-bit trainings go on from the float32 weights of a checkpoint as long as they are those of its weights."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from admin_nmt.checkpoints import Checkpoint, average
from admin_nmt.checkpoints.checkpoint import FLOAT32_COPIES
from admin_nmt.host.master_weights import masters
from tests.support.training import require_equal, train, weights
from tests.support.updates import build_optimizer, update

FORMS = {"flat": (), "one by one": ("--fp16-no-flatten-grads",)}


def in_a_row(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])


def trained(cfg: Any) -> tuple[dict[str, Any], list[Tensor]]:
    """The state of an optimizer after some updates, as in a checkpoint, and the 16-bit weights."""
    optimizer, held = build_optimizer(cfg)
    for seed in range(3):
        update(optimizer, held, seed)
    copies = [tensor.detach().clone() for tensor in masters(optimizer)]
    return optimizer.state_dict() | {FLOAT32_COPIES: copies}, held


def going_on(cfg: Any, state: dict[str, Any], start: list[Tensor]) -> Tensor:
    """The float32 weights, in a row, of a training that goes on from such a state and these weights."""
    _, held = build_optimizer(cfg)
    with torch.no_grad():
        for weight, value in zip(held, start, strict=True):
            weight.copy_(value)
    optimizer, _ = build_optimizer(cfg, held)  # as fairseq does after loading
    optimizer.load_state_dict(state)
    return in_a_row(masters(optimizer))


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_copies_are_taken_where_their_rounding_is_the_weights(
    parse: Callable[..., Any], caplog: pytest.LogCaptureFixture, precision: str, form: str, to: str
) -> None:
    options = ("--optimizer", "adam", f"--{precision}")
    state, start = trained(parse(*options, *FORMS[form]))
    copies = in_a_row(state[FLOAT32_COPIES])
    assert not torch.equal(copies, in_a_row(start))
    cfg = parse(*options, *FORMS[to])
    with caplog.at_level(logging.INFO):
        assert torch.equal(going_on(cfg, state, start), copies)
        assert "float32 copies" not in caplog.text
        changed = [start[0] * 1.5, *start[1:]]
        found = going_on(cfg, state, changed)
    size = start[0].numel()
    assert torch.equal(found[:size], in_a_row(changed)[:size])
    assert torch.equal(found[size:], copies[size:])
    assert "1 of 5 parameters go on from the checkpoint's weights" in caplog.text


@pytest.mark.parametrize(("first", "second"), [("bf16", "fp16"), ("fp16", "bf16")])
def test_copies_are_taken_in_a_training_of_the_other_precision(
    parse: Callable[..., Any], first: str, second: str
) -> None:
    """Its weights are rounded twice, which is not always the rounding of the copies."""
    state, start = trained(parse("--optimizer", "adam", f"--{first}"))
    flat = state[FLOAT32_COPIES][0]
    # float16 keeps 11 bits and bfloat16 8: just above a tie of bfloat16, and on it in float16.
    flat[0] = 1 + 2**-8 + 2**-13
    with torch.no_grad():
        start[0].view(-1)[0] = flat[0]
    cfg = parse("--optimizer", "adam", f"--{second}")
    assert torch.equal(going_on(cfg, state, start), flat)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("--bf16", torch.bfloat16), ("--fp16", torch.float16)]
)
def test_training_goes_on_from_an_average(
    data_bin: Path, tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    """Also from one of fairseq's `average_checkpoints.py`, which keeps the copies of the first file."""
    train(data_bin, tmp_path, 4, precision, "--save-interval-updates", "2")
    files = [Checkpoint.open(tmp_path / f"checkpoint_1_{updates}.pt") for updates in (4, 2)]
    mean = average(files)
    assert FLOAT32_COPIES in files[0].state["last_optimizer_state"]
    assert FLOAT32_COPIES not in mean.state["last_optimizer_state"]
    theirs = Checkpoint(mean.path, dict(files[0].state) | {"model": mean.weights})
    newest = {name: value.clone() for name, value in files[0].weights.items()}
    for name, checkpoint in (("ours", mean), ("theirs", theirs)):
        checkpoint.save(tmp_path / f"{name}.pt")
        options = ("--restore-file", str(tmp_path / f"{name}.pt"), "--lr", "1e-12")
        train(data_bin, tmp_path / name, 5, precision, *options)
        found = weights(tmp_path / name)
        # Files have the 16-bit values in float32.
        require_equal(found, {key: mean.weights[key].to(dtype).float() for key in found})
        assert any(not torch.equal(found[key], newest[key]) for key in found)
