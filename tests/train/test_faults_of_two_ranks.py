"""benchmarks/rank_faults.py in small: one fault of each kind on one of two ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.long
def test_one_fault_of_each_kind(data_bin: Path, tmp_path: Path) -> None:
    # A process of its own: autograd's threads, which other tests have started, do not survive a fork.
    results = tmp_path / "faults.json"
    script = REPOSITORY / "benchmarks" / "rank_faults.py"
    run = subprocess.run(
        [sys.executable, script, data_bin, "--smoke", "--output", results],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    met = {row["kind"]: row for row in json.loads(results.read_text())["details"]}
    assert {kind: row["outcome"] for kind, row in met.items()} == {
        "out of memory": "went on", "NaN": "ended", "exception": "ended", "SIGKILL": "ended"
    }  # fmt: skip
    assert met["out of memory"]["line"].endswith(
        "update 3 is left out on all ranks: rank 1 had no memory for it"
    )
    assert (
        "gradients of rank 1 at update 4 are NaN or infinite (first that of" in met["NaN"]["line"]
    )
    assert "rank 0 ended (ValueError: injected)" in met["exception"]["line"]
    assert "rank 1 is gone without a word" in met["SIGKILL"]["line"]
    assert all(row["equal_parameters"] and row["resumed"] is not False for row in met.values())
