"""Programs end when time is over and when they, or those who wait for them, are interrupted."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from admin_nmt.programs import OutOfTimeError, run_program, threads

LONG = ("sleep", "60")


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Shells start what runs in the background with interrupts ignored, and Python leaves that so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def status(code: str, log: Path, **options: float) -> int:
    with log.open("w") as stream:
        return run_program([sys.executable, "-c", code], stream, **options)


def test_status_and_words_of_a_program(tmp_path: Path) -> None:
    log, errors = tmp_path / "log", tmp_path / "errors"
    code = "import os, sys; print(os.environ['A']); sys.exit('wrong')"
    with log.open("w") as stream, errors.open("w") as other:
        assert run_program([sys.executable, "-c", code], stream, other, {"A": "words"}) == 1
    assert (log.read_text(), errors.read_text()) == ("words\n", "wrong\n")
    assert status("import sys; sys.exit('wrong')", log) == 1
    assert log.read_text() == "wrong\n"


def test_a_program_ends_when_time_is_over_and_has_a_second_in_any_case(tmp_path: Path) -> None:
    start, looks = time.monotonic(), []
    with pytest.raises(OutOfTimeError):
        run_program(LONG, sys.stderr, deadline=0.0, meanwhile=lambda: looks.append(1))
    assert 1 <= time.monotonic() - start < 30 and len(looks) > 1
    assert status("", tmp_path / "log", deadline=time.monotonic() + 60) == 0


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_ends_what_runs_and_leaves_out_what_has_not_begun(tmp_path: Path) -> None:
    """The main thread alone is told of an interrupt."""
    begun: list[int] = []
    ends: list[type[BaseException]] = []
    submitted = threading.Event()

    def interrupted(number: int) -> None:
        begun.append(number)
        submitted.wait()
        os.kill(os.getpid(), signal.SIGINT)
        try:
            run_program(LONG, sys.stderr)
        except BaseException as error:
            ends.append(type(error))
            raise

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), threads(1) as pool:
        futures = [pool.submit(interrupted, number) for number in range(3)]
        submitted.set()
        while not futures[-1].done():  # in short sleeps: a lock may miss a signal just before it
            time.sleep(0.1)
    assert begun == [0] and ends == [KeyboardInterrupt]
    assert time.monotonic() - start < 30
    # Not what comes after.
    assert status("", tmp_path / "log") == 0
    with threads(2) as pool:
        assert list(pool.map(lambda n: status("", tmp_path / str(n)), range(3))) == [0, 0, 0]


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_of_the_thread_that_waits_ends_its_program() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_program(LONG, sys.stderr, meanwhile=lambda: os.kill(os.getpid(), signal.SIGINT))
    children = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    assert " ".join(LONG) not in children.stdout
