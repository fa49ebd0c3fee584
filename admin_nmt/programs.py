"""Programs that end with the one that runs them, also where its threads run several at a time."""

import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

#: Seconds between two looks at a program.
INTERVAL = 0.2
#: In each of the `threads`: an event that they share. Only the thread that waits for them is interrupted
#: (Ctrl-C); it sets the event.
_thread_state = threading.local()


class OutOfTimeError(Exception):
    """The time given is over."""


def run_program(
    arguments: Sequence[object],
    stdout: IO,
    stderr: IO | int = subprocess.STDOUT,
    environment: Mapping[str, str] | None = None,
    deadline: float | None = None,
    meanwhile: Callable[[], object] = lambda: None,
    folder: Path | None = None,
) -> int:
    """Run a program to its end; when this function raises, the program has ended by SIGTERM.

    Args:
        arguments: program and its arguments.
        stdout: for what it says.
        stderr: for its errors (default: to `stdout`).
        environment: variables beside those of this process.
        deadline: of `time.monotonic()`; the program has a second in any case. None: none.
        meanwhile: called every `INTERVAL` seconds.
        folder: where it runs (default: the current folder).

    Returns:
        Its exit status.

    Raises:
        KeyboardInterrupt: this thread was interrupted, or the one whose `threads` it is one of.
        OutOfTimeError: time was over.
    """
    end = math.inf if deadline is None else max(deadline, time.monotonic() + 1)
    interrupted: threading.Event | None = getattr(_thread_state, "interrupted", None)
    process = subprocess.Popen(
        [str(argument) for argument in arguments], stdout=stdout, stderr=stderr,
        env=os.environ | dict(environment or {}), cwd=folder,
    )  # fmt: skip
    try:
        while not _ends_within(process, INTERVAL):
            if interrupted is not None and interrupted.is_set():
                raise KeyboardInterrupt
            if time.monotonic() > end:
                raise OutOfTimeError
            meanwhile()
    finally:
        end_program(process)
    return process.returncode


def end_program(process: subprocess.Popen) -> None:
    """Tell a program to stop, unless it has, and wait until it has ended."""
    if process.poll() is None:
        process.terminate()
        process.wait()


def _ends_within(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """`count` threads for functions that call `run_program`.

    Raises:
        KeyboardInterrupt: this thread was interrupted; the programs have ended, functions that had not
            begun are left out.
    """
    interrupted = threading.Event()

    def remember() -> None:
        _thread_state.interrupted = interrupted

    with ThreadPoolExecutor(count, initializer=remember) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
