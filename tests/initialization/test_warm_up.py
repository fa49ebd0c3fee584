"""Advice on short warm-ups of deep encoders: when, and once."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from admin_nmt.initialization.warm_up import RECIPE_UPDATES, warm_up_advice


@pytest.mark.parametrize(
    ("layers", "warmup", "expected"),
    [(60, 200, True), (19, 0, True), (60, 1999, True), (60, 2000, False), (18, 0, False), (60, None, False)],
)  # fmt: skip
def test_advice_is_for_deep_encoders_with_short_warm_ups(
    layers: int, warmup: int | None, expected: bool
) -> None:
    advice = warm_up_advice(layers, warmup)
    assert (advice is not None) == expected
    if advice:
        assert str(layers) in advice and str(warmup) in advice and str(RECIPE_UPDATES) in advice
        assert "\n" not in advice


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

    advice = "20 encoder layers with --warmup-updates 7: the published runs"
    assert train(1, "--warmup-updates", "7").count(advice) == 1
    assert advice not in train(2, "--warmup-updates", "7")  # resumed
    assert "the published runs" not in train(
        1, "--warmup-updates", "7", "--init-type", "admin-log", "--no-save",
        "--restore-file", "none.pt",
    )  # fmt: skip
