"""fairseq's R-Drop criterion, whose name is nearly ours, in a training of our models."""

from pathlib import Path

import pytest

from tests.support.training import train


@pytest.mark.parametrize(
    ("criterion", "told"),
    [
        ("label_smoothed_cross_entropy_with_rdrop", 1),
        ("label_smoothed_cross_entropy_rdrop", 0),
    ],
)
def test_fairseqs_own_rdrop_is_told_from_ours(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, criterion: str, told: int
) -> None:
    train(data_bin, tmp_path, 1, "--criterion", criterion, "--no-save")
    advice = "--criterion label_smoothed_cross_entropy_rdrop is this package's"
    assert sum(advice in message for message in caplog.messages) == told
