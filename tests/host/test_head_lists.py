"""Lists of heads as fairseq-hydra-train gives them."""

from argparse import Namespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from admin_nmt.host.heads import take_over_heads

GIVEN = {"head_mask": ["E:1:3", "A:2:1"], "heads_per_layer": ["E:4,2", "D:3"]}


@pytest.mark.parametrize("args", [Namespace(**GIVEN), OmegaConf.create(GIVEN)])
def test_lists_become_text(args: Any) -> None:
    take_over_heads(args)
    assert (args.head_mask, args.heads_per_layer) == ("E:1:3,A:2:1", "E:4,2 D:3")


def test_text_and_nothing_stay() -> None:
    args = Namespace(head_mask="", heads_per_layer=None)
    take_over_heads(args)
    assert (args.head_mask, args.heads_per_layer) == ("", None)
