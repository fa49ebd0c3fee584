"""RealFormer through fairseq's programs: resuming, two ranks, precisions, translating."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file
from tests.support.programs import run_program
from tests.support.ranks import OPTIONS, run_ranks
from tests.support.training import run_training

REALFORMER = (
    "--arch", "admin_realformer_iwslt_de_en", "--init-type", "admin", "--encoder-layers", "2",
    "--decoder-layers", "2", "--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "32",
    "--encoder-attention-heads", "2", "--decoder-attention-heads", "2",
    "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "32",
)  # fmt: skip
TRAIN = (
    *REALFORMER, "--cpu", "--share-all-embeddings", "--max-tokens", "300", "--optimizer", "radam",
    "--lr", "1e-3", "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1",
    "--num-workers", "0", "--no-epoch-checkpoints", "--disable-validation", "--seed", "5",
)  # fmt: skip


def weights(save_dir: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint_file(save_dir / "checkpoint_last.pt")["model"]


def test_training_resumes_to_identical_weights_and_translates(
    parse: Callable[..., Any], data_bin: Path, tmp_path: Path
) -> None:
    """`fairseq-train`, stopped and resumed, then `fairseq-generate` with alignments."""
    run_training(parse, tmp_path / "whole", *TRAIN, "--max-update", "5")
    run_training(parse, tmp_path / "parts", *TRAIN, "--max-update", "3")
    result = run_program(
        "fairseq-train", data_bin, *TRAIN, "--max-update", 5, "--save-dir", tmp_path / "parts"
    )
    assert "Loaded checkpoint" in result.stdout and "ADMIN omegas set" not in result.stdout
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(parts[name], value), name
    result = run_program(
        "fairseq-generate", data_bin, "--path", tmp_path / "parts" / "checkpoint_last.pt", "--cpu",
        "--beam", 2, "--max-len-b", 12, "--print-alignment", "hard",
    )  # fmt: skip
    lines = result.stdout.splitlines()
    assert len([line for line in lines if line.startswith("H-")]) == 20
    assert len([line for line in lines if line.startswith("A-")]) == 20


def test_two_ranks_train_as_one_with_accumulation(data_bin: Path, tmp_path: Path) -> None:
    options = (*REALFORMER, "--dropout", "0", "--attention-dropout", "0", "--activation-dropout")
    options = (*options, "0", "--lr", "1e-3", "--max-update", "2")
    run_ranks(data_bin, tmp_path / "two", *options, "--ddp-backend", "pytorch_ddp")
    run_program(
        "fairseq-train", data_bin, *OPTIONS, *options, "--update-freq", "2",
        "--save-dir", tmp_path / "one",
    )  # fmt: skip
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("options", [("--fp16",), ("--bf16",), ("--amp",)])
def test_half_precision_trains(
    parse: Callable[..., Any], tmp_path: Path, options: tuple[str, ...]
) -> None:
    state = run_training(
        parse, tmp_path, "--max-update", "60", "--lr", "1e-2", "--clip-norm", "1",
        "--residual-attention", "all", "--fp16-init-scale", "4", *options,
    )  # fmt: skip
    assert all(torch.isfinite(value.float()).all() for value in state["model"].values())
    entries = state["extra_state"]["metrics"]["train"]
    loss = next(entry for entry in entries if entry[1] == "loss")[3]
    # Bits per token: one that only learns to be uniform over 44 words stays above log2(44) = 5.46.
    assert loss["sum"] / loss["count"] < 5.2
