"""Criterions, models and batches for the tests of this folder."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def criterion(parse: Callable[..., Any], task: Any) -> Callable[..., Any]:
    """`criterion(*options)`: built from the options of `fairseq-train`."""

    def build_criterion(*options: str) -> Any:
        return task.build_criterion(parse(*options).criterion)

    return build_criterion
