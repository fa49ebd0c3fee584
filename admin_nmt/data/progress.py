"""Progress of long loops: a bar on a terminal, log lines elsewhere."""

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

#: Seconds between two log lines.
LOG_INTERVAL = 30.0


class Progress:
    """Counts lines of one step.

    Args:
        logger: gets the lines when stderr is no terminal.
        description: what is being done.
    """

    def __init__(self, logger: logging.Logger, description: str) -> None:
        self.logger = logger
        self.description = description
        self.bar = tqdm(
            desc=description, unit=" lines", unit_scale=True, disable=not sys.stderr.isatty()
        )
        self.count = 0
        self.started = self.logged = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()

    def update(self, lines: int) -> None:
        """`lines` more are done."""
        self.count += lines
        self.bar.update(lines)
        now = time.monotonic()
        if self.bar.disable and now - self.logged >= LOG_INTERVAL:
            self.logged = now
            rate = self.count / (now - self.started)
            self.logger.info("%s: %d lines, %.0f a second", self.description, self.count, rate)
