"""Map a function over a stream with several processes: in order, and in bounded memory."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
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
    # Ctrl-C is for the parent, which then stops the workers: started where interrupts wait, they never
    # see one.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this worker when its parent was killed; else it would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends; processes and threads that start in it never get one.

    An executor and its futures have locks, and an interrupt between the taking of a lock and the block that
    gives it back would leave it taken: the executor's thread would wait for it for ever, and so would the
    end of the program. What an interrupt means stays as it was: a program that ignores it, as one in a
    shell's background does, goes on.
    """
    main = threading.current_thread() is threading.main_thread()
    caught: list[int] = []
    if main:  # only there Python runs handlers, also for what another thread got
        before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, before)
        if caught:
            signal.raise_signal(signal.SIGINT)


def _result(future: Future[Result]) -> Result:
    """What `future.result()` gives, with an ear for Ctrl-C ten times a second."""
    while True:
        with _interrupts_wait():
            if wait([future], timeout=0.1).done:
                return future.result()


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
                yield first, _result(future)
        while pending:
            first, future = pending.popleft()
            yield first, _result(future)
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for lack of memory; try fewer --workers"
        ) from None
    finally:
        with _interrupts_wait():
            executor.shutdown(cancel_futures=True)
