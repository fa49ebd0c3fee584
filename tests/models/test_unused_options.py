"""Options that do nothing beside the others are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.models.unused_options import unused_options
from tests.support.training import train


@pytest.mark.parametrize(
    ("useless", "useful"),
    [
        ("--admin-freeze-omega --init-type rezero", "--admin-freeze-omega --init-type admin-log"),
        ("--admin-freeze-omega --init-type deepnorm", "--admin-freeze-omega"),
        ("--admin-profile-batches 7 --init-type admin-log", "--admin-profile-batches 7"),
        ("--admin-profile-batches 7 --admin-profile FILE", "--admin-profile FILE"),
        (
            "--residual-attention-reduce sum",
            "--residual-attention-reduce sum --residual-attention cross",
        ),
        (
            "--fused-residual-norm --init-type default --encoder-normalize-before --decoder-normalize-before",
            "--fused-residual-norm --init-type default --decoder-normalize-before",
        ),
        ("--fused-residual-norm --init-type rezero", "--fused-residual-norm --init-type deepnorm"),
        ("--alignment-heads 2", "--alignment-heads 2 --alignment-layer 0"),
    ],
)
def test_what_does_nothing_is_named(build: Callable[..., Any], useless: str, useful: str) -> None:
    (line,) = unused_options(build(*useless.split()).cfg)
    assert line.startswith(f"{useless.split()[0]}: ")
    assert unused_options(build(*useful.split()).cfg) == []


def test_training_says_it_once(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(data_bin, tmp_path, 1, "--residual-attention-reduce", "sum", "--no-save")
    told = [message for message in caplog.messages if message.startswith("no effect of --")]
    assert told == [
        "no effect of --residual-attention-reduce: give --residual-attention to carry scores"
    ]
