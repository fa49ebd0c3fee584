"""The parallel map keeps order, bounds what is in flight, and reports dead workers."""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import contextmanager

import pytest

from admin_nmt.data.parallel import chunks, ordered_map
from admin_nmt.errors import UserError


def slow_for_even(number: int) -> int:
    time.sleep(0.02 * (number % 2 == 0))
    return number * number


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_order_with_their_items(workers):
    results = list(ordered_map(slow_for_even, range(15), workers))
    assert results == [(number, number * number) for number in range(15)]


def test_no_more_than_two_items_per_worker_are_taken_ahead():
    taken = 0

    def items():
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    for done, _ in enumerate(ordered_map(abs, items(), workers=2)):
        assert taken <= done + 1 + 4


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_is_an_error_and_not_a_hang():
    with pytest.raises(UserError, match="worker process was killed"):
        list(ordered_map(die, range(10), workers=2))


def hears_interrupts(number: int) -> bool:
    return signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_interrupts_are_for_the_parent():
    assert not any(heard for _, heard in ordered_map(hears_interrupts, range(4), workers=2))
    assert hears_interrupts(0)


def sleep(number: int) -> int:
    time.sleep(0.2)
    return number


@contextmanager
def interrupted_soon(handler):
    """A SIGINT in 0.3 seconds, which `handler` gets."""
    before = signal.signal(signal.SIGINT, handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_the_wait_for_a_result():
    with pytest.raises(KeyboardInterrupt), interrupted_soon(signal.default_int_handler):
        list(ordered_map(sleep, range(100), workers=2))
    assert not multiprocessing.active_children()


def test_who_ignores_interrupts_goes_on():
    """As a program does that a shell started in its background."""
    with interrupted_soon(signal.SIG_IGN):
        results = list(ordered_map(sleep, range(6), workers=2))
    assert [number for number, _ in results] == list(range(6))


def test_an_interrupt_leaves_no_lock_of_a_future_taken(monkeypatch):
    """It comes when the lock was taken a moment ago: the worst of all moments."""
    enter, left, main = threading.Condition.__enter__, [20], threading.get_ident()

    def interrupted(condition):
        taken = enter(condition)
        if threading.get_ident() == main:
            left[0] -= 1
            if not left[0]:
                signal.raise_signal(signal.SIGINT)
        return taken

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(threading.Condition, "__enter__", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(ordered_map(abs, range(1000), workers=2))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not multiprocessing.active_children()


def fail(number: int) -> int:
    raise UserError(f"bad item {number}")


def test_errors_of_workers_arrive_as_they_are():
    with pytest.raises(UserError, match="bad item 0"):
        list(ordered_map(fail, range(10), workers=2))


def test_chunks_lose_nothing():
    assert list(chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []
