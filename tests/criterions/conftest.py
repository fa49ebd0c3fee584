"""Criterions, models and batches for the tests of this folder."""

from collections.abc import Callable
from typing import Any

import pytest

SMOOTH = ("--label-smoothing", "0.1")
OURS = ("--criterion", "admin_label_smoothed_cross_entropy", *SMOOTH)
RDROP = ("--criterion", "label_smoothed_cross_entropy_rdrop", *SMOOTH)
STOCK = ("--criterion", "label_smoothed_cross_entropy", *SMOOTH)
STILL = ("--dropout", "0", "--attention-dropout", "0", "--activation-dropout", "0")


@pytest.fixture(scope="session")
def criterion(parse: Callable[..., Any], task: Any) -> Callable[..., Any]:
    """`criterion(*options)`: built from the options of `fairseq-train`."""

    def build_criterion(*options: str) -> Any:
        return task.build_criterion(parse(*options).criterion)

    return build_criterion
