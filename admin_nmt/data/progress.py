"""Progress of long loops: a bar on a terminal, log lines elsewhere."""

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

#: Seconds between two log lines.
LOG_INTERVAL = 30.0


class Progress:
    """Counts what is done of one step.

    Args:
        logger: gets the lines when stderr is no terminal.
        description: what is being done.
        unit: what is counted.
    """

    def __init__(self, logger: logging.Logger, description: str, unit: str = "lines") -> None:
        self.logger = logger
        self.description = description
        self.unit = unit
        self.bar = tqdm(
            desc=description, unit=f" {unit}", unit_scale=True, disable=not sys.stderr.isatty()
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

    def update(self, count: int) -> None:
        """`count` more are done."""
        self.count += count
        self.bar.update(count)
        now = time.monotonic()
        if self.bar.disable and now - self.logged >= LOG_INTERVAL:
            self.logged = now
            rate = self.count / (now - self.started)
            self.logger.info(
                "%s: %d %s, %.0f a second", self.description, self.count, self.unit, rate
            )
