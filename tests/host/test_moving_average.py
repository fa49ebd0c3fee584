"""`--store-ema`: the moving average starts at the weights of a checkpoint without one, else goes on."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file
from tests.support.training import require_equal, train, weights

EMA = ("--store-ema", "--ema-decay", "0.9", "--ema-fp32")


def averages(folder: Path) -> dict[str, Any]:
    state = load_checkpoint_file(folder / "checkpoint_last.pt")["extra_state"]
    return {name: state[name] for name in ("ema", "ema_fp32_params")}


@pytest.mark.parametrize("option", ["--restore-file", "--finetune-from-model"])
def test_it_starts_at_the_weights_of_a_checkpoint_without_one(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    train(data_bin, tmp_path / "first", 2)
    given = (option, str(tmp_path / "first" / "checkpoint_last.pt"), *EMA)
    with caplog.at_level(logging.WARNING):  # one more update: fine-tuning counts anew
        train(data_bin, tmp_path / "second", 3 if option == "--restore-file" else 1, *given)
    assert "has no moving average (--store-ema): it starts anew" in caplog.text
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    for found in averages(tmp_path / "second").values():
        assert found.keys() == before.keys()
        for name in before.keys() - {"encoder.version", "decoder.version"}:
            torch.testing.assert_close(found[name], 0.9 * before[name] + 0.1 * after[name])


@pytest.mark.parametrize("every", [1, 3])
def test_it_goes_on_where_a_checkpoint_has_one(data_bin: Path, tmp_path: Path, every: int) -> None:
    """And takes in the same updates, here the third."""
    options = (*EMA, "--ema-update-freq", str(every))
    train(data_bin, tmp_path / "whole", 3, *options)
    for updates in (2, 3):
        train(data_bin, tmp_path / "parts", updates, *options)
    whole, parts = averages(tmp_path / "whole"), averages(tmp_path / "parts")
    for name in whole:
        require_equal(whole[name], parts[name])
    assert any(not torch.equal(whole["ema"][n], v) for n, v in weights(tmp_path / "whole").items())
