"""A training whose gradients are NaN says where, and ends in that error."""

from pathlib import Path

import pytest

from admin_nmt.host.errors import describe
from tests.support.training import train


def test_nan_gradients_are_the_error(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(FloatingPointError) as caught:
        train(data_bin, tmp_path, 9, "--lr", "1e38", "--warmup-updates", "1")
    assert any(" detected in output of encoder" in message for message in caplog.messages)
    assert str(describe(caught.value)).startswith("gradients are NaN or infinite; the log names")


def test_a_loss_scale_that_fell_to_the_end_is_one_line() -> None:
    from fairseq.optim.dynamic_loss_scaler import DynamicLossScaler

    scaler = DynamicLossScaler(init_scale=1.0, min_loss_scale=0.6)
    with pytest.raises(FloatingPointError) as caught:
        scaler.check_overflow(float("inf"))
    line = str(describe(caught.value))
    assert (
        line.startswith("Minimum loss scale reached (0.6): gradients overflow") and "\n" not in line
    )
