"""Options that fairseq takes a GPU for, on the CPU."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from admin_nmt import installed
from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.host import cpu
from tests.support.training import train


def test_fp16_leaves_out_updates_that_overflow(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    train(data_bin, tmp_path, 3, "--fp16", "--fp16-init-scale", "2048")
    assert (
        "gradient overflow detected, ignoring gradient, setting loss scale to: 1024" in caplog.text
    )
    last = load_checkpoint_file(tmp_path / "checkpoint_last.pt")
    assert last["optimizer_history"][-1]["num_updates"] == 3
    assert last["optimizer_history"][-1]["optimizer_name"] == "FP16Optimizer"


@pytest.mark.parametrize(
    ("options", "given", "gigabytes", "expected"),
    [
        (["--bf16"], None, 8, "2048"),
        (["--fp16"], None, 1, "1024"),  # oneDNN's own number is the least
        (["--bf16"], "7", 8, "7"),
        (["--bf16"], None, 1000, "40000"),
        ([], None, 8, None),
    ],
)
def test_16_bit_trainings_keep_the_kernels_of_more_shapes(
    parse: Callable[..., Any], task: Any, monkeypatch: pytest.MonkeyPatch,
    options: list[str], given: str | None, gigabytes: int, expected: str | None,
) -> None:  # fmt: skip
    from fairseq.trainer import Trainer

    monkeypatch.setattr(cpu, "memory_bytes", lambda: gigabytes << 30)
    monkeypatch.delenv(cpu.KERNELS, raising=False)
    if given:
        monkeypatch.setenv(cpu.KERNELS, given)
    cfg = parse("--init-type", "default", *options)
    Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    assert os.environ.pop(cpu.KERNELS, None) == expected


def test_memory_is_the_least_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(installed, "_LIMITS", (limit, tmp_path / "absent"))
    machine = installed.memory_bytes()
    assert machine > 1 << 28
    for text, expected in (("max\n", machine), (f"{1 << 20}\n", 1 << 20)):
        limit.write_text(text)
        assert installed.memory_bytes() == expected
