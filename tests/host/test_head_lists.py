"""Lists of heads as fairseq-hydra-train gives them, and masks that are refused."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from admin_nmt.errors import UsageError
from admin_nmt.host.heads import take_over_heads
from tests.support.training import train

GIVEN = {"head_mask": ["E:1:3", "A:2:1"], "heads_per_layer": ["E:4,2", "D:3"]}


@pytest.mark.parametrize("args", [Namespace(**GIVEN), OmegaConf.create(GIVEN)])
def test_lists_become_text(args: Any) -> None:
    take_over_heads(args)
    assert (args.head_mask, args.heads_per_layer) == ("E:1:3,A:2:1", "E:4,2 D:3")


def test_text_and_nothing_stay() -> None:
    args = Namespace(head_mask="", heads_per_layer=None)
    take_over_heads(args)
    assert (args.head_mask, args.heads_per_layer) == ("", None)


def test_heads_that_are_trained_to_align_are_not_masked(data_bin: Path, tmp_path: Path) -> None:
    """Before the training: pruning would have to remove them."""
    words = ("--alignment-layer", "0", "--alignment-heads", "2", "--head-mask", "A:1:3,A:1:2,E:1:1")
    with pytest.raises(UsageError, match=r"--head-mask A:1:2: alignments .*--alignment-layer 0"):
        train(data_bin, tmp_path, 1, *words)
    assert not list(tmp_path.glob("*.pt"))
