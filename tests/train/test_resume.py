"""kill -9 in mid-training, then the same command: the end is that of an uninterrupted run."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file
from tests.support.programs import BIN

UPDATES = 40


def command(data: Path, save_dir: Path) -> list[str]:
    return [
        str(BIN / "fairseq-train"), str(data), "--arch", "admin_transformer_tiny", "--cpu",
        "--seed", "3", "--share-all-embeddings", "--max-tokens", "150", "--optimizer", "radam",
        "--lr", "1e-3", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10",
        "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1",
        "--max-update", str(UPDATES), "--save-dir", str(save_dir),
        "--save-interval-updates", "8", "--keep-interval-updates", "1", "--no-epoch-checkpoints",
        "--disable-validation", "--num-workers", "0", "--log-interval", "1", "--log-format", "json",
    ]  # fmt: skip


def weights(save_dir: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint_file(save_dir / "checkpoint_last.pt")
    assert state["optimizer_history"][-1]["num_updates"] == UPDATES
    return state["model"]


@pytest.fixture
def uninterrupted(data_bin: Path, tmp_path: Path) -> dict[str, torch.Tensor]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        command(data_bin, tmp_path / "whole"), check=True, env=environment, capture_output=True
    )
    return weights(tmp_path / "whole")


def test_killed_training_resumes_to_identical_weights(
    data_bin: Path, tmp_path: Path, uninterrupted: dict[str, torch.Tensor]
) -> None:
    save_dir = tmp_path / "killed"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command(data_bin, save_dir), stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        deadline = time.monotonic() + 60
        while not (save_dir / "checkpoint_last.pt").exists():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    first = load_checkpoint_file(save_dir / "checkpoint_last.pt")
    assert first["optimizer_history"][-1]["num_updates"] < UPDATES

    result = subprocess.run(
        command(data_bin, save_dir), check=True, env=environment, capture_output=True, text=True
    )
    assert "Loaded checkpoint" in result.stdout
    assert "ADMIN omegas set" not in result.stdout  # a resumed run does not profile again
    resumed = weights(save_dir)
    assert resumed.keys() == uninterrupted.keys()
    for name, value in uninterrupted.items():
        assert torch.equal(resumed[name], value), name
    assert not list(save_dir.glob("*.tmp"))
