"""RealFormer through fairseq's programs: resuming, precisions, translating."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.in_process import run_fairseq
from tests.support.training import (
    require_equal,
    require_learning,
    run_training,
    train_here,
    weights,
)

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


def test_training_resumes_to_identical_weights_and_translates(
    parse: Callable[..., Any], data_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`fairseq-train`, stopped and resumed, then `fairseq-generate` with alignments."""
    run_training(parse, tmp_path / "whole", *TRAIN, "--max-update", "5")
    run_training(parse, tmp_path / "parts", *TRAIN, "--max-update", "3")
    log = train_here(data_bin, *TRAIN, "--max-update", 5, "--save-dir", tmp_path / "parts")
    assert "Loaded checkpoint" in log and "ADMIN omegas set" not in log
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    capsys.readouterr()
    run_fairseq(
        "fairseq-generate", data_bin, "--path", tmp_path / "parts" / "checkpoint_last.pt", "--cpu",
        "--beam", 2, "--max-len-b", 12, "--print-alignment", "hard",
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("H-")]) == 20
    assert len([line for line in lines if line.startswith("A-")]) == 20


@pytest.mark.parametrize("options", [("--fp16",), ("--bf16",), ("--amp",)])
def test_half_precision_trains(
    parse: Callable[..., Any], tmp_path: Path, options: tuple[str, ...]
) -> None:
    scale = ("--fp16-init-scale", "4")
    require_learning(parse, tmp_path, "--residual-attention", "all", *scale, *options)
