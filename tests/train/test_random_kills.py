"""benchmarks/random_kills.py in small: two kills, and that it would see a difference."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import torch

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import random_kills  # noqa: E402


@pytest.mark.long
def test_two_kills(data_bin: Path, tmp_path: Path) -> None:
    # A process of its own: autograd's threads, which other tests have started, do not survive a fork.
    results, tables = tmp_path / "kills.json", tmp_path / "tables.json"
    script = REPOSITORY / "benchmarks" / "random_kills.py"
    run = subprocess.run(
        [sys.executable, script, data_bin, "--smoke", "--output", results, "--json", tables],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(results.read_text())
    assert report["kills"] == 2 and report["runs_that_differ"] == 0
    assert sum(len(details["kills"]) for details in report["details"]) == 2
    ((row,),) = (table["rows"] for table in json.loads(tables.read_text())["tables"])
    assert row == {name: report[name] for name in row} and row["kills"] == 2


def test_a_file_that_an_earlier_kill_left_is_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    left = folder / "checkpoint_last.pt.tmp"
    writes = iter([True, False, True, False])

    def start(command: Sequence[str], log: Path) -> int:
        if next(writes):
            left.touch()
        return subprocess.Popen(command).pid

    def uniform(least: float, most: float) -> float:
        return 0.0

    monkeypatch.setattr(random_kills, "start", start)
    monkeypatch.setattr(random_kills, "ended", lambda process, seconds: None if seconds == 0 else 0)
    rng = Random(1)
    monkeypatch.setattr(rng, "uniform", uniform)
    kills = random_kills.killed_run(["sleep", "600"], folder, 1.0, 3, rng)
    assert [kill["while_writing"] for kill in kills] == [True, False, True]


def test_other_weights_are_seen() -> None:
    state = {"model": {"weight": torch.ones(3), "bias": torch.zeros(2)}, "updates": 9}
    same = {"model": {"weight": torch.ones(3), "bias": torch.zeros(2)}, "updates": 9}
    assert random_kills.differences(state, same) == []
    same["model"]["weight"][1] += torch.finfo(torch.float32).eps
    assert random_kills.differences(state, same) == [".model.weight"]
    same["updates"] = 8
    assert random_kills.differences(state, same) == [".model.weight", ".updates"]
    assert random_kills.differences({"a": [torch.ones(1)]}, {"a": [torch.ones(1), 2]}) == [".a"]
    half = {"a": torch.ones(1, dtype=torch.bfloat16)}
    assert random_kills.differences({"a": torch.ones(1)}, half) == [".a"]
