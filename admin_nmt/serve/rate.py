"""How often a client may ask."""

import time
from collections.abc import Callable


class RateLimit:
    """At most `per_minute` requests of a client at once, and as many a minute in the long run.

    Every client has a store of requests that fills up evenly and never beyond `per_minute`.

    Args:
        per_minute: requests; 0 for no limit.
        clock: seconds that only grow.
        max_clients: clients that are remembered before those with a full store are forgotten.
    """

    def __init__(
        self,
        per_minute: int,
        clock: Callable[[], float] = time.monotonic,
        max_clients: int = 10_000,
    ) -> None:
        self.per_minute = per_minute
        self.clock = clock
        self.max_clients = max_clients
        self._stores: dict[str, tuple[float, float]] = {}  # client -> (requests left, at this time)

    def delay(self, client: str) -> float:
        """Count a request: 0 where it may go ahead, else seconds until one may, uncounted."""
        if not self.per_minute:
            return 0.0
        now = self.clock()
        left = self._left(client, now)
        if left < 1:
            return (1 - left) * 60 / self.per_minute
        if len(self._stores) >= self.max_clients:
            self._forget(now)
        self._stores[client] = (left - 1, now)
        return 0.0

    def _left(self, client: str, now: float) -> float:
        left, since = self._stores.get(client, (float(self.per_minute), now))
        return min(left + (now - since) * self.per_minute / 60, float(self.per_minute))

    def _forget(self, now: float) -> None:
        self._stores = {
            client: store
            for client, store in self._stores.items()
            if self._left(client, now) < self.per_minute
        }
