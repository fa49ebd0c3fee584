"""Binarise prepared text with `fairseq-preprocess`, in a process of its own."""

import logging
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from admin_nmt.data.data_folder import dictionary_size
from admin_nmt.errors import UserError
from admin_nmt.programs import run_program
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

LOG_NAME = "preprocess.log"
#: What `fairseq-preprocess` says of a dictionary and of a file, behind whatever Python's logging puts
#: before it: the language, the name of the file if it is of one, the rest.
_FIGURES = re.compile(r"(\[\w+\] )(?:(\S+)(: .* sents, .*)|Dictionary: .* types)$")
_BLOCK = 1 << 20
#: `fairseq-preprocess` that, told to stop, ends by an exception: so its workers end with it.
_PROGRAM = """
import signal, sys
from fairseq_cli import preprocess
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
preprocess.cli_main()
"""


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
    # It would split the path of a prefix at commas: it runs in the folder of the text, from which it
    # must not import (-P).
    command = [sys.executable, "-P", "-c", _PROGRAM]
    command += ["--destdir", str(destination.absolute())]
    command += ["--source-lang", languages[0], "--target-lang", languages[1]]
    command += [part for name in sets for part in (f"--{name}pref", name)]
    command += ["--workers", str(workers)]
    command += ["--joined-dictionary"] * joined_dictionary
    total = sum(_num_subwords(text / f"{name}.{lang}") for name in sets for lang in languages)
    with progress(logger, "binarize", "subwords", total=total, unit_scale=True) as bar:
        # The parts of several workers are there twice for a moment, when they are joined.
        returncode, lines = _run(
            command,
            text,
            lambda: bar.update(max(0, min(total, _num_written(destination)) - bar.n)),
        )
        if not returncode:
            bar.update(total - bar.n)
    if returncode:
        raise UserError(
            f"fairseq-preprocess failed (status {returncode}): {lines[-1] if lines else ''}"
        )
    found = [match for line in lines if (match := _FIGURES.search(line))]
    for figures in dict.fromkeys(
        f"{match[1]}{text / match[2]}{match[3]}" if match[2] else match[0] for match in found
    ):
        logger.info("fairseq-preprocess: %s", figures)
    # It holds times and the number of workers; all else is the same for the same input.
    (destination / LOG_NAME).unlink(missing_ok=True)


def _run(command: list[str], folder: Path, look: Callable[[], object]) -> tuple[int, list[str]]:
    """Exit status and lines of a program run in `folder`; `look` is called meanwhile."""
    # Text needs no model: without our plug-in fairseq starts faster.
    environment = {"ADMIN_NMT_AUTOLOAD": "0", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryFile() as output:
        returncode = run_program(
            command, output, environment=environment, folder=folder, meanwhile=look
        )
        output.seek(0)
        lines = output.read().decode("utf-8", "replace").splitlines()
    return returncode, [line.strip() for line in lines if line.strip()]


def _num_subwords(path: Path) -> int:
    """Subwords and ends of sentences in a file; an empty line counts one too many."""
    count = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            count += block.count(b" ") + 2 * block.count(b"\n")
    return count


def _num_written(folder: Path) -> int:
    """Subwords in the binary files of `folder`, as far as they are."""
    count = 0
    for path in folder.glob("*.bin"):
        language = path.name.split(".")[2]
        # fairseq's `best_fitting_int_dtype`.
        width = 2 if dictionary_size(folder / f"dict.{language}.txt") < 65500 else 4
        try:
            count += path.stat().st_size // width
        except FileNotFoundError:  # a part that was joined to the others meanwhile
            continue
    return count
