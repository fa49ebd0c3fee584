"""Output files that must not be written are refused before any work."""

import os
from pathlib import Path

import pytest

from admin_nmt.errors import UsageError, UserError
from admin_nmt.outputs import require_files


def test_what_no_file_can_be_written_as_is_refused(tmp_path: Path) -> None:
    """As root even a device would give way to a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name, message in (
        ("", "--output is empty: give the name of a file"),
        (tmp_path, "is a folder"),
        (pipe, "--output .*pipe is a device or a pipe"),
        ("/dev/null", "--output /dev/null is a device or a pipe"),
    ):
        with pytest.raises(UsageError, match=message):
            require_files({"--plot": None, "--output": name})


def test_inputs_other_outputs_and_what_is_there_are_kept(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    with pytest.raises(UsageError, match=r"--output .*there is an input"):
        require_files({"--output": there}, [tmp_path / "x" / ".." / "there", there])
    with pytest.raises(UsageError, match=r"--plot .*new is the --output"):
        require_files({"--output": tmp_path / "new", "--plot": tmp_path / "new"})
    with pytest.raises(UserError, match=r"--output .*there exists: give another name, or --force"):
        require_files({"--output": there}, force=False)
    require_files({"--output": there, "--plot": tmp_path / "new"}, [None])
