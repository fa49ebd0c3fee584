"""kill -9 in mid-training, then the same command: the end is that of an uninterrupted run."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from admin_nmt.checkpoints.reading import load_checkpoint_file
from tests.support.ranks import start_ranks
from tests.support.training import require_equal, train_here, weights

OPTIONS = (
    "--arch", "admin_transformer_tiny", "--cpu",
    "--seed", "3", "--share-all-embeddings", "--max-tokens", "150", "--optimizer", "radam",
    "--lr", "1e-3", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "10",
    "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1",
    "--save-interval-updates", "8", "--keep-interval-updates", "1", "--no-epoch-checkpoints",
    "--disable-validation", "--num-workers", "0", "--log-interval", "1", "--log-format", "json",
)  # fmt: skip


def updates(save_dir: Path) -> int:
    """How many the last checkpoint has made."""
    state = load_checkpoint_file(save_dir / "checkpoint_last.pt")
    return state["optimizer_history"][-1]["num_updates"]


def kill_after_a_checkpoint(process: subprocess.Popen[bytes], save_dir: Path) -> None:
    deadline = time.monotonic() + 600
    try:
        while not (save_dir / "checkpoint_last.pt").exists():
            log = (save_dir / "0.log").read_text()[-2000:]
            assert time.monotonic() < deadline and process.poll() is None, log
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_killed_training_resumes_to_identical_weights(data_bin: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    (process,) = start_ranks(killed, data_bin, *OPTIONS, "--max-update", "100000")
    kill_after_a_checkpoint(process, killed)
    end = updates(killed) + 20
    train_here(data_bin, *OPTIONS, "--max-update", end, "--save-dir", whole)
    log = train_here(data_bin, *OPTIONS, "--max-update", end, "--save-dir", killed)
    assert "Loaded checkpoint" in log
    assert "ADMIN omegas set" not in log  # a resumed run does not profile again
    assert updates(killed) == updates(whole) == end
    require_equal(weights(whole), weights(killed))
    assert not list(killed.glob("*.tmp"))
