"""Advice on short warm-ups of deep encoders: when, and once."""

import logging
from pathlib import Path

import pytest

from admin_nmt.initialization.warm_up import warm_up_advice
from tests.support.training import train


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
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def log(folder: str, updates: int, *options: str) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            train(data_bin, tmp_path / folder, updates, "--encoder-layers", "20", "--warmup-updates",
                  "7", *options)  # fmt: skip
        return caplog.text

    advice = "20 encoder layers with --lr 0.001 and --warmup-updates 7: the learning rate rises by"
    assert log("admin", 1).count(advice) == 1
    assert "encoder layers with" not in log("admin", 2)  # resumed
    assert "encoder layers with" not in log("admin-log", 1, "--init-type", "admin-log", "--no-save")
