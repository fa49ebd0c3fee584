"""Ranks learn when another ends: three of them in one process, joined over this machine."""

import json
import os
import queue
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from admin_nmt.errors import UserError
from admin_nmt.host import lifeline
from admin_nmt.host.lifeline import Lifeline

#: (who heard it, rank that ended, cause)
Heard = queue.Queue[tuple[int, int, str | None]]


@contextmanager
def joined(heard: Heard) -> Iterator[tuple[Lifeline, ...]]:
    """Ranks 0, 1 and 2, all known to rank 0."""
    ranks = tuple(
        Lifeline(rank, lambda ended, cause, rank=rank: heard.put((rank, ended, cause)))
        for rank in range(3)
    )
    try:
        address = ranks[0].listen("127.0.0.1")
        for other in ranks[1:]:
            other.connect(*address)
        deadline = time.monotonic() + 10
        while len(ranks[0]._connections) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        yield ranks
    finally:
        for rank in ranks:
            rank.close()


def told(heard: Heard) -> list[tuple[int, int, str | None]]:
    """What two ranks heard, and that nothing comes after it."""
    found = [heard.get(timeout=5), heard.get(timeout=5)]
    with pytest.raises(queue.Empty):
        heard.get(timeout=0.2)
    return sorted(found)


@pytest.mark.parametrize("ended", [0, 1])
@pytest.mark.parametrize("cause", ["ValueError: no", None])
def test_all_others_hear_once_who_ended_and_why(ended: int, cause: str | None) -> None:
    heard: Heard = queue.Queue()
    with joined(heard) as ranks:
        if cause is None:  # as the system does it for a process that is killed
            ranks[ended]._leaving = True
            for connection in ranks[ended]._connections:
                connection.socket.shutdown(socket.SHUT_RDWR)
        else:
            ranks[ended].leave(cause)
        others = [rank for rank in range(3) if rank != ended]
        assert told(heard) == [(rank, ended, cause) for rank in others]


def test_ranks_that_end_by_themselves_end_nobody() -> None:
    heard: Heard = queue.Queue()
    with joined(heard) as ranks:
        for rank in (2, 0, 1):
            ranks[rank].leave()
        with pytest.raises(queue.Empty):
            heard.get(timeout=0.5)


def test_strangers_are_not_heard() -> None:
    heard: Heard = queue.Queue()
    with joined(heard) as ranks:
        listener = ranks[0]._listener
        assert listener is not None
        port = listener.getsockname()[1]
        for word in ({"token": "guessed", "rank": 1}, {"cause": "stop"}, "no JSON"):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                stranger.sendall(json.dumps(word).encode() + b'\n{"ended": 1, "cause": "stop"}\n')
                with suppress(ConnectionResetError):
                    assert stranger.recv(100) == b""  # closed, unanswered
        with pytest.raises(queue.Empty):
            heard.get(timeout=0.3)
        ranks[2].leave("still heard")
        assert told(heard) == [(0, 2, "still heard"), (1, 2, "still heard")]


def _rank_with_a_worker(address: tuple[str, int, str], worker: int) -> None:
    """Rank 1: a process that forks one that outlives it, as workers that read data do, and is killed;
    writes the other's id to the pipe `worker`."""
    Lifeline(1, lambda rank, cause: None).connect(*address)
    forked = os.fork()
    if forked:
        os.write(worker, str(forked).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    os._exit(0)


def test_a_forked_worker_does_not_hold_the_connection_of_a_killed_rank() -> None:
    heard: Heard = queue.Queue()
    zero = Lifeline(0, lambda rank, cause: heard.put((0, rank, cause)))
    address = zero.listen("127.0.0.1")
    reading, writing = os.pipe()
    try:
        process = os.fork()
        if process == 0:
            _rank_with_a_worker(address, writing)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        worker = int(os.read(reading, 20))
        try:
            assert heard.get(timeout=15) == (0, 1, None)
        finally:
            os.kill(worker, signal.SIGKILL)
    finally:
        zero.close()
        os.close(reading)
        os.close(writing)


def test_causes_are_one_line() -> None:
    assert lifeline.cause_of(UserError("DATA: no such folder")) == "DATA: no such folder"
    assert lifeline.cause_of(KeyError("x")) == "KeyError: 'x'"
    assert lifeline.cause_of(RuntimeError("CUDA error\nlong explanation")) == (
        "RuntimeError: CUDA error"
    )
    assert len(lifeline.cause_of(RuntimeError("x" * 1000))) == 300


@pytest.mark.parametrize(
    ("method", "host"),
    [
        ("tcp://node7:29500", "node7"),
        ("tcp://[::1]:29500", "::1"),
        ("env://", "node8"),
        ("file:///shared/rendezvous", socket.gethostname()),
    ],
)
def test_the_host_of_rank_0(method: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "node8")
    assert lifeline._host(method) == host
