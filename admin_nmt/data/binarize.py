"""Binarise prepared text with `fairseq-preprocess`, in a process of its own."""

import logging
import os
import subprocess
import sys
from pathlib import Path

from admin_nmt.errors import UserError

logger = logging.getLogger(__name__)

LOG_NAME = "preprocess.log"


def binarize(
    text: Path,
    languages: tuple[str, str],
    sets: list[str],
    destination: Path,
    *,
    joined_dictionary: bool,
    workers: int,
) -> None:
    """Make dictionaries and binary files.

    Args:
        text: folder with `SET.LANG` files of subwords.
        sets: those of train, valid and test to take.
        destination: folder for the result; must not hold dictionaries yet.

    Raises:
        UserError: fairseq-preprocess failed; the last line it printed is part of the message.
    """
    command = [sys.executable, "-m", "fairseq_cli.preprocess", "--destdir", str(destination)]
    command += ["--source-lang", languages[0], "--target-lang", languages[1]]
    command += [part for name in sets for part in (f"--{name}pref", str(text / name))]
    command += ["--workers", str(workers)]
    command += ["--joined-dictionary"] * joined_dictionary
    returncode, last = _run(command)
    if returncode:
        raise UserError(f"fairseq-preprocess failed (status {returncode}): {last}")
    # It holds times and the number of workers; all else is the same for the same input.
    (destination / LOG_NAME).unlink(missing_ok=True)


def _run(command: list[str]) -> tuple[int, str]:
    """Exit status and last line of a program; lines with figures go to our log."""
    # Text needs no model: without our plug-in fairseq starts faster.
    env = os.environ | {"ADMIN_NMT_AUTOLOAD": "0", "PYTHONWARNINGS": "ignore"}
    last = ""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=env,
    ) as process:
        assert process.stdout is not None  # because of PIPE above
        for line in process.stdout:
            last = line.strip() or last
            if "| [" in line:  # size of a dictionary, summary of a file
                logger.info("fairseq-preprocess: %s", line.rsplit("| ", 1)[-1].strip())
    return process.returncode, last
