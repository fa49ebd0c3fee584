"""Batches of concurrent callers: nothing is lost or mixed up, nobody waits for all of another."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from admin_nmt.errors import UsageError
from admin_nmt.serve.batching import Batcher, Busy


class Work:
    """Tens of numbers, on a gate; remembers its calls and how many ran at once."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[str] = set()

    def __call__(self, kind: int, items: list[int]) -> list[int]:
        self.calls.append((kind, items))
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(20)
        if -1 in items:
            raise ValueError("negative")
        return [10 * item for item in items]


Test = Callable[[Batcher[int, int], Work], Coroutine[Any, Any, None]]


def check(test: Test, **options: Any) -> Work:
    """Run a test with a batcher, which is closed at the end."""
    work = Work()

    async def run() -> None:
        batcher = Batcher(work, **options)
        try:
            await asyncio.wait_for(test(batcher, work), 30)
        finally:
            work.gate.set()
            await batcher.close()

    asyncio.run(run())
    return work


async def first_call(work: Work) -> None:
    """Until the work has been called."""
    while not work.calls:
        await asyncio.sleep(0.001)


def test_what_arrives_together_is_done_together_and_comes_back_to_its_caller() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        found = await asyncio.gather(*(batcher.submit([n, n + 1]) for n in range(100)))
        assert found == [[10 * n, 10 * n + 10] for n in range(100)]

    work = check(test, max_batch=64, wait=1)
    assert [len(items) for _, items in work.calls] == [64, 64, 64, 8]
    assert len(work.threads) == 1


def test_a_full_batch_does_not_wait_and_a_lone_item_waits_shortly() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        assert await batcher.submit([1, 2, 3, 4]) == [10, 20, 30, 40]  # within the 30 s of `check`
        batcher.wait = 0.01
        assert await batcher.submit([5]) == [50]
        assert await batcher.submit([]) == []

    assert len(check(test, max_batch=4, wait=600).calls) == 2


def test_an_idle_batcher_waits_for_company() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        callers = []
        for number in range(3):
            callers.append(asyncio.create_task(batcher.submit([number])))
            await asyncio.sleep(0.01)
        assert await asyncio.gather(*callers) == [[0], [10], [20]]

    assert check(test, max_batch=3, wait=600).calls == [(0, [0, 1, 2])]


def test_what_arrives_while_a_batch_runs_is_the_next_batch() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        work.gate.clear()
        callers = [asyncio.create_task(batcher.submit([0]))]
        await first_call(work)
        callers += [asyncio.create_task(batcher.submit([n])) for n in range(1, 9)]
        await asyncio.sleep(0.02)
        assert len(work.calls) == 1 and batcher.num_waiting == 8
        work.gate.set()
        assert await asyncio.gather(*callers) == [[10 * n] for n in range(9)]

    work = check(test, wait=0)
    assert [items for _, items in work.calls] == [[0], [1, 2, 3, 4, 5, 6, 7, 8]]


def test_a_short_request_does_not_wait_for_all_of_a_long_one() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        work.gate.clear()
        long = asyncio.create_task(batcher.submit(range(100, 120)))
        await first_call(work)
        short = asyncio.create_task(batcher.submit([1, 2]))
        await asyncio.sleep(0)
        work.gate.set()
        assert await short == [10, 20]
        assert not long.done()
        assert await long == [10 * n for n in range(100, 120)]

    work = check(test, max_batch=4, wait=0)
    assert work.calls[1] == (0, [104, 1, 105, 2])


def test_kinds_never_share_a_batch_and_take_turns() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        jobs = [batcher.submit([n, n], kind=n % 2) for n in range(8)]
        assert await asyncio.gather(*jobs) == [[10 * n, 10 * n] for n in range(8)]

    work = check(test, max_batch=4, wait=1)
    assert all(len({item % 2 for item in items}) == 1 for _, items in work.calls)
    assert [kind for kind, _ in work.calls] == [0, 1, 0, 1]


def test_only_the_guilty_item_fails() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        jobs = [batcher.submit([n, 1]) for n in (12, -1, 14)]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        assert found[0] == [120, 10] and found[2] == [140, 10]
        assert isinstance(found[1], ValueError) and str(found[1]) == "negative"
        assert await batcher.submit([5]) == [50]

    check(test)


def test_a_result_too_few_is_an_error() -> None:
    async def test() -> None:
        batcher: Batcher[int, int] = Batcher(lambda kind, items: items[1:])
        with pytest.raises(RuntimeError, match="0 results for 1 items"):
            await batcher.submit([1])
        await batcher.close()

    asyncio.run(test())


def test_who_went_away_costs_nothing() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        work.gate.clear()
        running = asyncio.create_task(batcher.submit([1]))
        await first_call(work)
        gone = asyncio.create_task(batcher.submit([2, 3]))
        stays = asyncio.create_task(batcher.submit([4]))
        await asyncio.sleep(0)
        gone.cancel()
        work.gate.set()
        assert (await running, await stays) == ([10], [40])

    work = check(test, wait=0)
    assert [items for _, items in work.calls] == [[1], [4]]


def test_too_much_waiting_is_refused_at_once() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        work.gate.clear()
        running = asyncio.create_task(batcher.submit([1]))
        await first_call(work)
        waits = asyncio.create_task(batcher.submit([2, 3]))
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await batcher.submit([4, 5])
        work.gate.set()
        assert await running + await waits == [10, 20, 30]
        assert await batcher.submit([4, 5]) == [40, 50]

    check(test, wait=0, max_waiting=3)


def test_more_than_may_wait_is_done_when_nothing_else_waits() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        assert await batcher.submit(range(5)) == [0, 10, 20, 30, 40]
        work.gate.clear()
        work.calls.clear()
        long = asyncio.create_task(batcher.submit(range(5)))
        await first_call(work)
        with pytest.raises(Busy):
            await batcher.submit([1])
        work.gate.set()
        assert await long == [0, 10, 20, 30, 40]

    check(test, max_batch=2, wait=0, max_waiting=3)


def test_closing_finishes_the_batch_that_runs_and_refuses_the_rest() -> None:
    async def test(batcher: Batcher[int, int], work: Work) -> None:
        work.gate.clear()
        running = asyncio.create_task(batcher.submit([1]))
        await first_call(work)
        waits = asyncio.create_task(batcher.submit([2]))
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        work.gate.set()
        await closing
        assert await running == [10]
        for late in (waits, batcher.submit([3])):
            with pytest.raises(Busy):
                await late

    assert len(check(test, wait=0).calls) == 1


def test_a_batch_holds_something() -> None:
    with pytest.raises(UsageError, match="--batch-size 0"):
        Batcher(lambda kind, items: items, max_batch=0)
