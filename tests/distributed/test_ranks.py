"""Two ranks train like one with twice the update frequency, and outlive the loss of a rank."""

import json
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

OPTIONS = [
    "--arch", "admin_transformer_tiny", "--cpu", "--share-all-embeddings", "--seed", "3",
    "--dropout", "0", "--max-tokens", "60", "--criterion", "label_smoothed_cross_entropy",
    "--label-smoothing", "0.1", "--disable-validation", "--no-epoch-checkpoints",
    "--num-workers", "0", "--log-format", "json", "--log-interval", "1",
]  # fmt: skip


def start(folder: Path, data: Path, *options: str, ranks: int = 1) -> list[subprocess.Popen[bytes]]:
    """`start_ranks` with the options of this file."""
    return start_ranks(folder, data, *OPTIONS, *options, ranks=ranks)


def losses(log: str) -> list[float]:
    """The training loss of every update."""
    lines = (line.split(" | train_inner | ") for line in log.splitlines())
    return [float(json.loads(line[1])["loss"]) for line in lines if len(line) == 2]


def test_two_ranks_equal_one_with_twice_the_update_frequency(
    data_bin: Path, tmp_path: Path
) -> None:
    options = ("--optimizer", "sgd", "--lr", "0.1", "--clip-norm", "1", "--max-update", "8")
    one, two = tmp_path / "one", tmp_path / "two"
    started = start(one, data_bin, *options, "--update-freq", "2")
    log_two = finish(start(two, data_bin, *options, ranks=2), two)
    log_one = finish(started, one)
    assert len(losses(log_one)) == 8 and losses(log_one)[0] > losses(log_one)[-1]
    assert losses(log_two) == pytest.approx(losses(log_one), abs=2e-3)  # logged with 3 decimals
    expected = load_checkpoint_file(one / "checkpoint_last.pt")["model"]
    found = load_checkpoint_file(two / "checkpoint_last.pt")["model"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=name)


def wait_for(condition: Callable[[], bool], processes: list[Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)


def test_a_killed_rank_ends_the_other_in_one_line_and_the_rerun_resumes(
    data_bin: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ("--optimizer", "radam", "--lr", "1e-3", "--save-interval-updates", "5")
    processes = start(run, data_bin, *options, "--max-update", "100000", ranks=2)
    try:
        wait_for((run / "checkpoint_last.pt").exists, processes)
        processes[1].send_signal(signal.SIGKILL)
        assert processes[0].wait(timeout=60) == 1
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
    end = str(done + 3)
    log = finish(start(run, data_bin, *options, "--max-update", end, ranks=2), run)
    assert "Loaded checkpoint" in log and f"@ {done} updates" in log
    resumed = load_checkpoint_file(run / "checkpoint_last.pt")
    assert resumed["optimizer_history"][-1]["num_updates"] == done + 3


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
