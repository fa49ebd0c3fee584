"""Work of concurrent requests in common batches, on one thread. Knows asyncio and nothing of HTTP."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from admin_nmt.errors import require_at_least_one

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class Busy(Exception):  # noqa: N818  (a state, which passes)
    """Too much is waiting, or the batcher is closed."""


@dataclass(eq=False)
class _Job(Generic[Item, Result]):
    """What one caller wants: items of one kind, of which the first `taken` are in batches."""

    kind: int
    items: Sequence[Item]
    done: asyncio.Future[list[Result]]
    taken: int = 0
    results: dict[int, Result] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether items are left, and the caller still waits."""
        return self.taken < len(self.items) and not self.done.done()


class Batcher(Generic[Item, Result]):
    """Runs `work` on batches of what callers submit.

    A batch starts `wait` seconds after the first item arrived at an idle batcher, at once when it is
    full, and at once after another batch. It takes one item of each caller in turn, so that a short
    request does not wait for all of a long one, and items of one kind only, because `work` treats
    them alike. Where a batch fails, its items are tried one by one: nobody gets another's error.

    Args:
        work: `work(kind, items)` gives a result for every item, in order; runs on a thread of its
            own, one call at a time.
        max_batch: most items in a batch.
        wait: seconds to wait for company.
        max_waiting: most items that wait, over all callers; a caller with more of them gets its turn
            when no others wait.
    """

    def __init__(
        self,
        work: Callable[[int, list[Item]], list[Result]],
        max_batch: int = 64,
        wait: float = 0.005,
        max_waiting: int = 20_000,
    ) -> None:
        require_at_least_one("--batch-size", max_batch)
        self.work = work
        self.max_batch = max_batch
        self.wait = wait
        self.max_waiting = max_waiting
        #: Batches and items that `work` has done.
        self.num_batches = self.num_items = 0
        self._jobs: deque[_Job[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batcher")
        self._loop: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def num_waiting(self) -> int:
        """Items that are in no batch yet."""
        return sum(len(job.items) - job.taken for job in self._jobs if job.open)

    async def submit(self, items: Sequence[Item], kind: int = 0) -> list[Result]:
        """The results for `items`, in order. Cancelling leaves out what is in no batch yet.

        Raises:
            Busy: too much is waiting, or the batcher is closed.
            Exception: what `work` raised for one of `items`.
        """
        waiting = self.num_waiting
        # Refused while nothing waits, a long request would be refused for ever.
        if self._closed or (waiting and waiting + len(items) > self.max_waiting):
            raise Busy
        if not items:
            return []
        if self._loop is None:
            self._loop = asyncio.create_task(self._run())
        job = _Job[Item, Result](kind, items, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        return await job.done

    async def close(self) -> None:
        """End after the batch that runs; who still waits gets `Busy`."""
        self._closed = True
        self._arrived.set()
        if self._loop is not None:
            await self._loop
        for job in self._jobs:
            if not job.done.done():
                job.done.set_exception(Busy())
        self._jobs.clear()
        self._thread.shutdown()

    async def _run(self) -> None:
        while not self._closed:
            await self._arrived.wait()
            await self._gather()
            while not self._closed and (batch := self._take()):
                await self._finish(batch)
            self._arrived.clear()

    async def _gather(self) -> None:
        """Wait for company until a batch is full."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.wait
        while not self._closed and self.num_waiting < self.max_batch:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), end - loop.time())
            except TimeoutError:
                return

    def _take(self) -> list[tuple[_Job[Item, Result], int]]:
        """The next batch, as jobs and the numbers of their items; jobs that it opens come last."""
        jobs = [job for job in self._jobs if job.open]
        turn = deque(job for job in jobs if job.kind == jobs[0].kind)
        batch: list[tuple[_Job[Item, Result], int]] = []
        while turn and len(batch) < self.max_batch:
            job = turn.popleft()
            batch.append((job, job.taken))
            job.taken += 1
            if job.open:
                turn.append(job)
        served = {id(job) for job, _ in batch}
        left = [job for job in jobs if job.open]
        self._jobs = deque(sorted(left, key=lambda job: id(job) in served))
        return batch

    async def _finish(self, batch: list[tuple[_Job[Item, Result], int]]) -> None:
        kind = batch[0][0].kind
        items = [job.items[number] for job, number in batch]
        try:
            self._give(batch, await self._call(kind, items))
        except Exception as error:
            if len(batch) > 1:
                logger.warning("a batch of %d failed (%s): one by one", len(batch), error)
                for entry in batch:
                    await self._finish([entry])
            elif not batch[0][0].done.done():
                batch[0][0].done.set_exception(error)

    async def _call(self, kind: int, items: list[Item]) -> list[Result]:
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._thread, self.work, kind, items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(results)} results for {len(items)} items")
        self.num_batches += 1
        self.num_items += len(items)
        return results

    @staticmethod
    def _give(batch: list[tuple[_Job[Item, Result], int]], results: list[Result]) -> None:
        for (job, number), result in zip(batch, results, strict=True):
            job.results[number] = result
            if len(job.results) == len(job.items) and not job.done.done():
                job.done.set_result([job.results[index] for index in range(len(job.items))])
