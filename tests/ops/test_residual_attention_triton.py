"""The Triton kernels against PyTorch: by Triton's interpreter on CPUs, and on a GPU where one is.

The interpreter must be chosen before the kernels are imported, so its cases run in one process of
their own. Both parts are skipped where Triton is not installed (PyTorch for CPUs comes without it).
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
REPOSITORY = Path(__file__).parents[2]


def test_kernels_equal_pytorch_in_the_interpreter() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.ops.residual_attention_triton_cases", "cpu"],
        cwd=REPOSITORY, capture_output=True, text=True,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    assert result.stdout.count("equal") == 7, result.stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_kernels_equal_pytorch_on_the_gpu() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.ops.residual_attention_triton_cases", "cuda"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    assert result.stdout.count("equal") == 8, result.stdout
