"""Two ranks train like one with twice the update frequency, and outlive the loss of a rank."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.host import errors
from tests.support.ranks import finish, start_ranks
from tests.support.training import logged, train_here

OPTIONS = [
    "--arch", "admin_transformer_tiny", "--cpu", "--share-all-embeddings", "--seed", "3",
    "--dropout", "0", "--max-tokens", "60", "--criterion", "label_smoothed_cross_entropy",
    "--label-smoothing", "0.1", "--disable-validation", "--no-epoch-checkpoints",
    "--num-workers", "0", "--log-format", "json", "--log-interval", "1",
]  # fmt: skip


def start(folder: Path, data: Path, *options: str) -> list[subprocess.Popen[bytes]]:
    """Two ranks with the options of this file."""
    return start_ranks(folder, data, *OPTIONS, *options, ranks=2)


def train_as_one(folder: Path, data: Path, *options: str) -> str:
    """The same training with one rank and twice the update frequency; what it logs."""
    given = (*OPTIONS, *options, "--update-freq", "2")
    return train_here(data, "--save-dir", folder, *given)


def losses(log: str) -> list[float]:
    """The training loss of every update."""
    return [float(update["loss"]) for update in logged(log)]


def require_close(found: Path, expected: Path) -> None:
    """The weights in two folders are the same but for the order of sums."""
    first, second = (
        load_checkpoint_file(folder / "checkpoint_last.pt")["model"] for folder in (found, expected)
    )
    assert first.keys() == second.keys()
    for name, value in second.items():
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.slow
def test_two_ranks_equal_one_with_twice_the_update_frequency(
    data_bin: Path, tmp_path: Path
) -> None:
    options = (
        "--residual-attention", "all", "--optimizer", "sgd", "--lr", "0.1", "--clip-norm", "1",
        "--max-update", "8",
    )  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    started = start(two, data_bin, *options)
    log_one = train_as_one(one, data_bin, *options)
    log_two = finish(started, two)
    assert "ADMIN omegas set" in log_two
    assert len(losses(log_one)) == 8 and losses(log_one)[0] > losses(log_one)[-1]
    assert losses(log_two) == pytest.approx(losses(log_one), abs=2e-3)  # logged with 3 decimals
    require_close(two, one)


def wait_for(condition: Callable[[], bool], processes: list[Any]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_rank_ends_the_other_in_one_line_and_the_rerun_resumes(
    data_bin: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ("--optimizer", "sgd", "--momentum", "0.5", "--lr", "0.1", "--clip-norm", "1")
    endless = ("--save-interval-updates", "5", "--max-update", "100000")
    processes = start(run, data_bin, *options, *endless)
    try:
        wait_for((run / "checkpoint_last.pt").exists, processes)
        processes[1].send_signal(signal.SIGKILL)
        assert processes[0].wait(timeout=600) == 1
    finally:
        for process in processes:
            process.kill()
    last = (run / "0.log").read_text().splitlines()
    assert last[-1] == (
        "fairseq-train: error: rank 1 is gone without a word (killed?); see its log, then run the "
        "same command again: training resumes from the last checkpoint"
    )
    assert not [line for line in last if "Traceback" in line or "error" in line][:-1]

    state = load_checkpoint_file(run / "checkpoint_last.pt")
    done = state["optimizer_history"][-1]["num_updates"]
    options = (*options, "--max-update", str(done + 3))
    started = start(run, data_bin, *options)
    train_as_one(tmp_path / "whole", data_bin, *options)
    log = finish(started, run)
    assert "Loaded checkpoint" in log and f"@ {done} updates" in log
    assert "ADMIN omegas set" not in log
    resumed = load_checkpoint_file(run / "checkpoint_last.pt")
    assert resumed["optimizer_history"][-1]["num_updates"] == done + 3
    require_close(run, tmp_path / "whole")


@pytest.mark.parametrize(
    "text",
    [
        "[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:38071: Connection reset by peer.",
        "[gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:1234. Check",
        "DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.",
        "NCCL error: ncclRemoteError: A call failed possibly due to a network error or a remote "
        "process exiting prematurely.",
    ],
)
def test_errors_of_a_lost_rank_are_explained(text: str) -> None:
    assert "another rank ended" in str(errors.describe(RuntimeError(text)))


def test_a_spawned_rank_that_was_killed_is_explained() -> None:
    from torch.multiprocessing import ProcessExitedException

    error = ProcessExitedException(
        "process 1 terminated with signal SIGKILL", 1, 4711, exit_code=-9, signal_name="SIGKILL"
    )
    line = str(errors.describe(error))
    assert "another rank ended" in line and "signal SIGKILL" in line


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker timed out after 5 seconds"),
        RuntimeError("gloo: tensors differ in size"),
        ValueError("gloo: Connection reset by peer"),
    ],
)
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    assert errors.describe(error) is None
