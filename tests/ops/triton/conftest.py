"""Triton's kernels run on a GPU, or on the CPU in Triton's interpreter.

The interpreter must be chosen before Triton is imported, which importing fairseq does; so without a
GPU these tests only run in the process that `tests/ops/test_triton_interpreter.py` starts.
"""

import os
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip this folder's tests where they cannot run."""
    if torch.cuda.is_available() or INTERPRETED:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="runs in test_triton_interpreter.py"))


@pytest.fixture(scope="session")
def device() -> str:
    """Where the kernels run."""
    return "cpu" if INTERPRETED else "cuda"
