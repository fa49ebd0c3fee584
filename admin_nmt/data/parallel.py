"""Map a function over a stream with several processes: in order, and in bounded memory."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import joblib

from admin_nmt.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use."""
    return joblib.cpu_count()


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut a stream into lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _start_worker(parent: int) -> None:
    # Ctrl-C is for the parent, which then stops the workers; they would only print tracebacks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this worker when its parent was killed; else it would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends: inside an executor's own locks it could hang it, and
    a worker that was forked a moment ago would still obey it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets interrupts
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in the order of the items whatever the number of workers.

    At most two items per worker are in flight, so memory does not depend on their number.

    Args:
        function: must be picklable; one worker calls it in this process.

    Raises:
        UserError: a worker process was killed.
    """
    if workers == 1:
        for item in items:
            yield item, function(item)
        return
    context = multiprocessing.get_context("fork")
    executor = ProcessPoolExecutor(
        workers, context, initializer=_start_worker, initargs=(os.getpid(),)
    )
    pending: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            with _interrupts_wait():
                pending.append((item, executor.submit(function, item)))
            if len(pending) >= 2 * workers:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for lack of memory; try fewer --workers"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)
