"""Two ranks over gloo end with the omegas of one rank, under both kinds of DDP, and resume; they may
drop layers."""

from pathlib import Path

import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file
from tests.support.programs import run_program
from tests.support.ranks import OPTIONS, run_ranks


@pytest.mark.long  # tests/distributed/test_ranks.py compares weights, omegas and a resumed training too
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


@pytest.mark.parametrize("attention", ["none", pytest.param("all", marks=pytest.mark.long)])
@pytest.mark.slow
def test_ranks_may_drop_layers(data_bin: Path, tmp_path: Path, attention: str) -> None:
    """PyTorch's exchange of gradients must not wait for those of dropped layers."""
    log = run_ranks(
        data_bin, tmp_path / "two", "--encoder-layerdrop", "0.5", "--decoder-layerdrop", "0.5",
        "--residual-attention", attention, "--lr", "1e-3", "--max-update", "4",
    )  # fmt: skip
    assert log.count("--find-unused-parameters is switched on") == 1
    saved = load_checkpoint_file(tmp_path / "two" / "checkpoint_last.pt")
    assert saved["optimizer_history"][-1]["num_updates"] == 4
