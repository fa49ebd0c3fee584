"""One progress display for terminals and for log files."""

import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

#: Seconds between two lines when stderr is not a terminal.
LOG_INTERVAL = 30.0
#: Seconds after which `clock` shows the time anew.
TICK = 1.0


class _LogLines:
    """A text stream that turns each redrawing of a bar into one log line."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self.last = ""

    def write(self, text: str) -> None:
        # Before the bracket stands how far it is, behind it the time. tqdm draws a full bar twice:
        # after the last update, and when it is closed.
        place = text.strip().split(" [")[0]
        if place and place != self.last:
            self.last = place
            self.logger.info("%s", text.strip())

    def flush(self) -> None:
        """Nothing is held back."""


def progress(
    logger: logging.Logger,
    description: str,
    unit: str,
    iterable: Iterable | None = None,
    **kwargs: Any,
) -> tqdm:
    """A tqdm bar on a terminal; else the same text as a log line every `LOG_INTERVAL` seconds.

    Args:
        logger: gets the lines when stderr is not a terminal.
        description: what is being done.
        unit: what is counted.
        iterable: what to go through, if the bar is to wrap something.
        kwargs: for tqdm, such as `total`.
    """
    if not sys.stderr.isatty():
        kwargs |= {"file": _LogLines(logger), "mininterval": LOG_INTERVAL, "ncols": 100}
        # tqdm would guess after how many iterations to look at the clock, and redraw where it was wrong.
        kwargs["miniters"] = 1
        kwargs.setdefault("delay", LOG_INTERVAL)  # short loops say nothing
    return tqdm(iterable, desc=description, unit=f" {unit}", **kwargs)


@contextmanager
def clock(logger: logging.Logger, description: str) -> Iterator[None]:
    """The time that a step takes, as `progress` shows it, while the block runs.

    For libraries that tell nothing of how far they are, and let other threads run.
    """
    ended = threading.Event()
    with progress(logger, description, "s", bar_format="{desc}: {elapsed}") as bar:

        def tick() -> None:
            while not ended.wait(TICK):
                bar.update()

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def above_bars() -> Any:
    """A context in which text may be written to the terminal: bars go away and come back below it."""
    return tqdm.external_write_mode()


class LogHandler(logging.StreamHandler):
    """Log lines on stderr that leave bars whole."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        with above_bars():
            super().emit(record)
