"""Runs the tests of the Triton kernels in Triton's interpreter, on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_kernels_in_the_interpreter(device: str) -> None:
    if device == "cuda":
        pytest.skip("the kernels' own tests run on the GPU")
    pytest.importorskip("triton")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-vv", "-p", "no:cacheprovider",
         str(Path(__file__).parent / "triton")],
        capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-5000:]
    # Of the losses and residual attention, and of the residual norm; none skipped.
    assert result.stdout.count(" PASSED") == 29 + 23, result.stdout
