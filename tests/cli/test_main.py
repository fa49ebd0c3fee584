"""Failures of a subcommand: one line, its exit code, and the traceback for whoever asks for it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

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


#: `admin-nmt average` whose result is one line, in a process of its own: Python's end is a part of it.
WRITING = """
import sys
import admin_nmt_autoload
admin_nmt_autoload.defer_registration = True  # as the program does
from admin_nmt.cli import average, main
average.run = lambda args: sys.stdout.write("the mean\\n") and None
sys.exit(main.main(["average", "--inputs", "x.pt", "--output", "y.pt"]))
"""


def test_output_that_cannot_be_written_ends_in_one_line_or_none() -> None:
    """As `admin-nmt ... > FILE` on a full disk, and as `admin-nmt ... | head`."""
    unset = {"PYTHONUNBUFFERED", "ADMIN_NMT_TRACEBACK"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}

    def run(stdout: int) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", WRITING], stdout=stdout, stderr=subprocess.PIPE, text=True,
            env=environment | {"ADMIN_NMT_AUTOLOAD": "0"},
        )  # fmt: skip

    with open("/dev/full", "w") as full:  # noqa: PTH123
        found = run(full.fileno())
    assert found.returncode == 1
    assert found.stderr == "admin-nmt average: error: [Errno 28] No space left on device\n"
    reading, writing = os.pipe()
    os.close(reading)
    found = run(writing)
    os.close(writing)
    assert (found.returncode, found.stderr) == (1, "")


def test_names_that_are_no_text_can_be_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(average, "run", lambda args: print("mean of r\udcfcn.pt"))
    assert main(COMMAND) == 0
    assert capsys.readouterr().out == "mean of r\\udcfcn.pt\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_standard_stream_may_be_closed(closed: str, tmp_path: Path) -> None:
    """As services start programs."""
    text = tmp_path / "text"
    text.write_text("A dog runs over the grass.\n")
    hypotheses = "-" if closed == "<&-" else text
    program = "from admin_nmt.cli.main import main; raise SystemExit(main())"
    words = [sys.executable, "-c", program, "score", str(hypotheses), str(text)]
    command = f"{shlex.join(words)} {closed}"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in found.stderr
    assert found.returncode == (closed == "<&-"), found.stderr
    assert closed != "<&-" or "standard input is empty" in found.stderr
    assert closed == "<&-" or closed == ">&-" or "BLEU" in found.stdout
