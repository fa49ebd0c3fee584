"""Failures of a subcommand: one line, its exit code, and the traceback for whoever asks for it."""

import pytest
import torch

from admin_nmt.cli import average
from admin_nmt.cli.main import main
from admin_nmt.errors import UsageError

COMMAND = ["average", "--inputs", "x.pt", "--output", "y.pt"]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("--inputs: none"), 2, "--inputs: none"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), 1, "out of memory (OutOfMemory"),
        (MemoryError(), 1, "out of memory (MemoryError)"),
        (OSError(28, "No space left on device", "y.pt"), 1, "y.pt: No space left on device"),
        (
            AssertionError("Sentences lengths should not exceed max_tokens=5"), 1,
            "a sentence is longer than --max-tokens 5",
        ),
    ],
)  # fmt: skip
def test_known_failures_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception,
    code: int, line: str,
) -> None:  # fmt: skip
    def run(args: object) -> None:
        raise error

    monkeypatch.setattr(average, "run", run)
    assert main(COMMAND) == code
    said = capsys.readouterr().err
    assert said.startswith(f"admin-nmt average: error: {line}") and said.count("\n") == 1
    monkeypatch.setenv("ADMIN_NMT_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(COMMAND)


def test_other_failures_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: object) -> None:
        raise AssertionError("a defect")

    monkeypatch.setattr(average, "run", run)
    with pytest.raises(AssertionError, match="a defect"):
        main(COMMAND)
