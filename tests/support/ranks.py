"""Training processes on this machine that find each other over gloo, for tests."""

import os
import socket
import subprocess
from pathlib import Path

from tests.support.programs import BIN


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start_ranks(
    folder: Path, data: Path, *options: str, ranks: int = 1
) -> list[subprocess.Popen[bytes]]:
    """Start `fairseq-train`; rank R writes `FOLDER/R.log`, checkpoints lie in `FOLDER`."""
    folder.mkdir(exist_ok=True)
    address = f"tcp://127.0.0.1:{free_port()}"
    command = [str(BIN / "fairseq-train"), str(data), "--save-dir", str(folder), *options]
    processes = []
    for rank in range(ranks):
        distributed = [] if ranks == 1 else [
            "--distributed-world-size", str(ranks), "--distributed-rank", str(rank),
            "--distributed-no-spawn", "--distributed-init-method", address,
            "--distributed-backend", "gloo",
        ]  # fmt: skip
        with (folder / f"{rank}.log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    command + distributed, stdout=log, stderr=subprocess.STDOUT,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )
            )  # fmt: skip
    return processes


def finish(processes: list[subprocess.Popen[bytes]], folder: Path) -> str:
    """Wait for success; what rank 0 printed."""
    try:
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    log = (folder / "0.log").read_text()
    assert codes == [0] * len(processes), log[-3000:]
    return log


OPTIONS = [
    "--arch", "admin_transformer_tiny", "--cpu", "--share-all-embeddings", "--seed", "3",
    "--max-tokens", "150", "--optimizer", "radam", "--criterion", "label_smoothed_cross_entropy",
    "--label-smoothing", "0.1", "--disable-validation", "--no-epoch-checkpoints",
    "--num-workers", "0", "--log-format", "json", "--log-interval", "1",
]  # fmt: skip


def run_ranks(data: Path, save_dir: Path, *options: str) -> str:
    """Both ranks to their end; returns rank 0's output."""
    return finish(start_ranks(save_dir, data, *OPTIONS, *options, ranks=2), save_dir)
