"""Options of criterions and tasks that do nothing beside the others are named."""

from collections.abc import Callable
from typing import Any

import pytest

from admin_nmt.host.unused_options import of_criterion_and_task

OURS = "--criterion admin_label_smoothed_cross_entropy"
RDROP = "--criterion label_smoothed_cross_entropy_rdrop"


@pytest.mark.parametrize(
    ("useless", "useful", "criterion"),
    [
        ("--label-smoothing-over all", "--label-smoothing-over all --label-smoothing 0.1", OURS),
        ("--label-smoothing-over all", "--label-smoothing-over all --label-smoothing 0.1", RDROP),
        ("--alignment-lambda 0.5", "--alignment-lambda 0.5 --load-alignments", OURS),
        ("--rdrop-passes 3 --rdrop-alpha 0", "--rdrop-passes 3 --rdrop-alpha 1", RDROP),
        ("--rdrop-interval 3 --rdrop-alpha 0", "--rdrop-interval 3", RDROP),
        ("--rdrop-loss-scale mean --rdrop-alpha 0", "--rdrop-loss-scale mean", RDROP),
        (
            "--bpe-dropout-side source --criterion label_smoothed_cross_entropy_with_rdrop",
            "--criterion label_smoothed_cross_entropy_with_rdrop",  # fairseq's, with an alpha of 0
            "",
        ),
        ("--bpe-dropout-side source", "--bpe-dropout-side source --bpe-dropout 0.1", OURS),
        (
            "--bpe-dropout-side target --criterion cross_entropy",
            "--bpe-dropout-side target --subword-regularization 0.1 --criterion cross_entropy",
            "",
        ),
    ],
)
def test_what_does_nothing_is_named(
    parse: Callable[..., Any], useless: str, useful: str, criterion: str
) -> None:
    def told(options: str) -> list[str]:
        cfg = parse(*options.split(), *criterion.split())
        return of_criterion_and_task(cfg.criterion, cfg.task)

    (line,) = told(useless)
    assert line.startswith(f"{useless.split()[0]}: ")
    assert told(useful) == []
