"""Two ranks over gloo end with the omegas of one rank, under both kinds of DDP, and resume."""

from pathlib import Path

import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file
from tests.conftest import run_program
from tests.ranks import finish, start_ranks

OPTIONS = [
    "--arch", "admin_transformer_tiny", "--cpu", "--share-all-embeddings", "--seed", "3",
    "--max-tokens", "150", "--optimizer", "radam", "--criterion", "label_smoothed_cross_entropy",
    "--label-smoothing", "0.1", "--disable-validation", "--no-epoch-checkpoints",
    "--num-workers", "0", "--log-format", "json", "--log-interval", "1",
]  # fmt: skip


def run_ranks(data: Path, save_dir: Path, *options: str) -> str:
    """Both ranks to their end; returns rank 0's output."""
    return finish(start_ranks(save_dir, data, *OPTIONS, *options, ranks=2), save_dir)


@pytest.mark.parametrize("backend", ["pytorch_ddp", "legacy_ddp"])
def test_ranks_agree_with_a_single_rank_and_resume(
    data_bin: Path, tmp_path: Path, backend: str
) -> None:
    # fairseq itself stops when gradient norms differ between ranks, which they would with
    # different omegas; the checkpoint shows rank 0's.
    first = run_ranks(
        data_bin, tmp_path / "two", "--ddp-backend", backend, "--lr", "0", "--max-update", "2"
    )
    assert "ADMIN omegas set" in first
    run_program(
        "fairseq-train", data_bin, *OPTIONS, "--lr", "0", "--max-update", "1",
        "--save-dir", tmp_path / "one",
    )  # fmt: skip
    one = load_checkpoint_file(tmp_path / "one" / "checkpoint_last.pt")["model"]
    two = load_checkpoint_file(tmp_path / "two" / "checkpoint_last.pt")["model"]
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=0, msg=name)

    second = run_ranks(
        data_bin, tmp_path / "two", "--ddp-backend", backend, "--lr", "1e-3", "--max-update", "4"
    )
    assert "Loaded checkpoint" in second and "ADMIN omegas set" not in second
    resumed = load_checkpoint_file(tmp_path / "two" / "checkpoint_last.pt")
    assert resumed["optimizer_history"][-1]["num_updates"] == 4
