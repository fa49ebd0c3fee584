"""The parallel map keeps order, bounds what is in flight, and reports dead workers."""

import os
import signal
import time

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


def fail(number: int) -> int:
    raise UserError(f"bad item {number}")


def test_errors_of_workers_arrive_as_they_are():
    with pytest.raises(UserError, match="bad item 0"):
        list(ordered_map(fail, range(10), workers=2))


def test_chunks_lose_nothing():
    assert list(chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []
