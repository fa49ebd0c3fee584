"""Triton's kernels run on a GPU with `--device cuda`, else on the CPU in Triton's interpreter.

The interpreter must be chosen before Triton is imported, which importing fairseq does; so on the CPU
these tests only run in the process that `tests/ops/test_triton_interpreter.py` starts.
"""

from pathlib import Path

import pytest

from tests.support.interpreter import INTERPRETED


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip this folder's tests where they cannot run."""
    if config.getoption("device") == "cuda" or INTERPRETED:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="runs in test_triton_interpreter.py"))
