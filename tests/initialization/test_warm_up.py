"""Advice on short warm-ups of deep encoders: when, and once."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from admin_nmt.initialization.warm_up import warm_up_advice


@pytest.mark.parametrize(
    ("layers", "lr", "warmup", "enough"),
    [
        (60, 1e-3, 1000, 3400),  # collapses on Multi30k; 3,000 and 3,400 train
        (60, 1e-3, 3000, None),
        (60, 2e-3, 2000, 6700),
        (60, 1e-3, 8000, None),  # as published
        (19, 5e-4, 0, 1700),
        (18, 5e-4, 0, None),
        (60, 5e-4, None, None),
    ],
)
def test_advice_is_for_deep_encoders_whose_learning_rate_rises_steeply(
    layers: int, lr: float, warmup: int | None, enough: int | None
) -> None:
    advice = warm_up_advice(layers, lr, warmup)
    assert (advice is not None) == (enough is not None)
    if advice:
        assert f"{layers} encoder layers with --lr {lr:g} and --warmup-updates {warmup}:" in advice
        assert f"give --warmup-updates {enough} or more" in advice and "\n" not in advice
        assert warm_up_advice(layers, lr, enough) is None  # whoever follows it hears no more


def test_a_first_learning_rate_is_no_rise() -> None:
    assert warm_up_advice(60, 5e-4, 100, 5e-4) is None
    assert "rises by 5.0e-06 an update" in str(
        warm_up_advice(60, 5e-4, 100, -1)
    )  # fairseq's default


def test_training_advises_once_at_its_start(
    data_bin: Path, tmp_path: Path, program: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    def train(updates: int, *options: str) -> str:
        result = program(
            "fairseq-train", data_bin, "--arch", "admin_transformer_tiny", "--cpu", "--max-tokens",
            300, "--optimizer", "radam", "--lr", "1e-3", "--lr-scheduler", "inverse_sqrt",
            "--max-update", updates, "--save-dir", tmp_path, "--disable-validation",
            "--encoder-layers", 20, "--num-workers", 0, *options,
        )  # fmt: skip
        return result.stdout + result.stderr

    advice = "20 encoder layers with --lr 0.001 and --warmup-updates 7: the learning rate rises by"
    assert train(1, "--warmup-updates", "7").count(advice) == 1
    assert advice not in train(2, "--warmup-updates", "7")  # resumed
    assert "encoder layers with" not in train(
        1, "--warmup-updates", "7", "--init-type", "admin-log", "--no-save",
        "--restore-file", "none.pt",
    )  # fmt: skip
