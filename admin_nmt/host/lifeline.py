"""A rank that ends takes the others along, in one line that names it and says why.

The others of fairseq's ranks wait for it in their next collective operation: gloo tells them, after a
while, that some peer closed a connection; NCCL lets them wait for many minutes. Here every rank holds
a connection to rank 0. A rank that fails sends the cause through it; where a process is killed, its
system closes the connection. Nothing is sent while all goes well, and a rank that is only slow is
never taken for dead. A host that loses its power closes nothing: there the time limits of the backend
remain.
"""

import json
import logging
import os
import secrets
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any
from urllib.parse import urlparse

import torch

from admin_nmt.errors import UserError
from admin_nmt.host.errors import collective_failed, describe, first_line, program, resume_line
from admin_nmt.host.patch import Patch, Scope

logger = logging.getLogger(__name__)

#: Seconds in which a process that does not read or answer is given up.
_PATIENCE = 10.0
#: Seconds between the line and the end where a rank told its cause: launchers that end all processes
#: after the first shall see that one first, with its traceback.
_AFTER_LINE = 3.0
#: Seconds that a checkpoint may take to be written to its end.
_FOR_CHECKPOINT = 40.0
_LONGEST = 2**16
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: Rank and cause; the cause is None where a rank has gone without a word.
OnEnd = Callable[[int, str | None], None]


class AllRanksError(UserError):
    """Raised by all ranks at once, so that none has to tell the others."""


class Connection:
    """Messages as lines of JSON over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(_PATIENCE)
        # Routers forget connections on which nothing is sent.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        self.socket = sock
        self.rank: int | None = None
        self._read = b""

    def send(self, **message: Any) -> None:
        """Send one; a peer that is gone gets none."""
        with suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """What has come since the last call, None at the end; waits for the first byte."""
        try:
            more = self.socket.recv(4096)
        except TimeoutError:
            return []
        except OSError:
            return None
        if not more or len(self._read) > _LONGEST:
            return None
        *lines, self._read = (self._read + more).split(b"\n")
        try:
            return [dict(json.loads(line)) for line in lines]
        except ValueError:
            return None

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self.socket.close()


class Lifeline:
    """What connects one rank with the others.

    Args:
        rank: of this process.
        on_end: called, from another thread, when another rank has failed or gone.
    """

    def __init__(self, rank: int, on_end: OnEnd) -> None:
        self.rank = rank
        self.other_ended = threading.Event()
        self._on_end = on_end
        self._lock = threading.Lock()
        self._leaving = False
        self._connections: list[Connection] = []
        self._listener: socket.socket | None = None
        self._token = ""
        mine = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _close_in_child(mine))

    def listen(self, host: str) -> tuple[str, int, str]:
        """Rank 0: its host and port, and the token that the other ranks must send.

        Raises:
            OSError: no port is to be had.
        """
        if host in _LOOPBACK:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, 0), family=family)
        elif socket.has_dualstack_ipv6():
            self._listener = socket.create_server(
                ("", 0), family=socket.AF_INET6, dualstack_ipv6=True
            )
        else:
            self._listener = socket.create_server(("", 0))
        self._token = secrets.token_hex(16)
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()
        return host, self._listener.getsockname()[1], self._token

    def connect(self, host: str, port: int, token: str) -> None:
        """Other ranks: hold on to rank 0.

        Raises:
            OSError: it cannot be reached.
        """
        connection = Connection(socket.create_connection((host, port), timeout=_PATIENCE))
        connection.rank = 0
        connection.send(token=token, rank=self.rank)
        self._connections.append(connection)
        threading.Thread(target=self._watch, args=(connection,), daemon=True).start()

    def leave(self, cause: str | None = None) -> None:
        """This rank ends: by itself, or because of `cause`, which the others are told."""
        with self._lock:
            self._leaving = True
            for connection in self._connections:
                if cause is None:
                    connection.send(done=True)
                else:
                    connection.send(ended=self.rank, cause=cause)
        self.close()

    def close(self) -> None:
        """End all connections without a word."""
        with self._lock:
            self._leaving = True
            for connection in self._connections:
                connection.close()
            if self._listener is not None:
                self._listener.close()

    def _watch(self, connection: Connection) -> None:
        """Another rank's thread: wait for what rank 0 says."""
        while (messages := connection.receive()) is not None:
            for message in messages:
                if "done" in message:
                    return
                self._ended(int(message.get("ended", 0)), message.get("cause"))
        self._ended(0, None)

    def _serve(self, listener: socket.socket) -> None:
        """Rank 0's thread: let the others in, hear what they say and when they are gone."""
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            while not self._leaving:
                for key, _ in selector.select(timeout=1.0):
                    if key.data is None:
                        with suppress(OSError):
                            connection = Connection(listener.accept()[0])
                            selector.register(connection.socket, selectors.EVENT_READ, connection)
                    elif not self._hear(key.data):
                        selector.unregister(key.fileobj)
                        key.data.close()

    def _hear(self, connection: Connection) -> bool:
        """Rank 0: take in what has come from one rank; False when it says no more."""
        messages = connection.receive()
        if messages is None:
            if connection.rank is not None:
                self._ended(connection.rank, None)
            return False
        for message in messages:
            if connection.rank is None:  # nobody is heard before the word
                if message.get("token") != self._token:
                    return False
                with self._lock:
                    connection.rank = int(message["rank"])
                    self._connections.append(connection)
            elif "done" in message:
                with self._lock:
                    self._connections.remove(connection)
                return False
            else:
                self._ended(connection.rank, message.get("cause"))
        return True

    def _ended(self, rank: int, cause: str | None) -> None:
        """Another rank has ended: pass it on, once, unless this one is about to end too."""
        with self._lock:
            if self._leaving or self.other_ended.is_set():
                return
            for connection in self._connections if self.rank == 0 else ():
                if connection.rank != rank:
                    connection.send(ended=rank, cause=cause)
            self.other_ended.set()
        self._on_end(rank, cause)


def _close_in_child(lifeline: "weakref.ref[Lifeline]") -> None:
    """Workers that read data must not hold the connections of a rank that is killed."""
    mine = lifeline()
    if mine is not None:
        for connection in mine._connections:
            connection.close()
        if mine._listener is not None:
            mine._listener.close()


def end_line(rank: int, cause: str | None) -> str:
    """What a rank says when another has ended.

    >>> end_line(3, "ValueError: no")
    'rank 3 ended (ValueError: no); see its log, then run the same command again: training resumes from the last checkpoint'
    """
    what = "is gone without a word (killed?)" if cause is None else f"ended ({cause})"
    return resume_line(f"rank {rank} {what}")


def cause_of(error: BaseException) -> str:
    """One short line for what a rank ended with.

    >>> cause_of(ValueError("first\\nsecond"))
    'ValueError: first'
    """
    return (isinstance(error, Exception) and describe(error)) or first_line(error)


#: Held while a checkpoint is written, so that it is not cut off by the end of another rank.
_writing = threading.Lock()
_current: Lifeline | None = None


def _end_process(rank: int, cause: str | None) -> None:
    """End this process in one line; its main thread may wait in an operation that never returns."""
    _writing.acquire(timeout=_FOR_CHECKPOINT)
    sys.stdout.flush()
    sys.stderr.write(f"{program()}: error: {end_line(rank, cause)}\n")
    sys.stderr.flush()
    if cause is not None:
        time.sleep(_AFTER_LINE)
    os._exit(1)


def _host(init_method: str) -> str:
    """The host of rank 0, as the other ranks know it."""
    if init_method.startswith("tcp://"):
        return urlparse(init_method).hostname or socket.gethostname()
    if init_method.startswith("env://"):
        return os.environ.get("MASTER_ADDR", socket.gethostname())
    return socket.gethostname()


def start(init_method: str, on_end: OnEnd = _end_process) -> Lifeline | None:
    """Connect the ranks of the default process group; a collective operation. None on one that
    cannot be reached, which is said in one line."""
    rank = torch.distributed.get_rank()
    lifeline = Lifeline(rank, on_end)
    address: list[Any] = [None]
    failed = None
    if rank == 0:
        try:
            address = [lifeline.listen(_host(init_method))]
        except OSError as error:
            failed = str(error)
    torch.distributed.broadcast_object_list(address, src=0)
    if rank != 0 and address[0] is not None:
        try:
            lifeline.connect(*address[0])
        except OSError as error:
            failed = f"{address[0][0]}:{address[0][1]}: {error}"
    if failed is not None:
        logger.warning(f"rank {rank} cannot be told of the end of other ranks ({failed})")
        lifeline.close()
        return None
    return lifeline if address[0] is not None else None


def _connected(distributed_init: Callable) -> Callable:
    """The ranks of a training hold connections that tell each when another one ends."""

    @wraps(distributed_init)
    def wrapped(cfg: Any) -> Any:
        global _current
        rank = distributed_init(cfg)
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            _current = start(cfg.distributed_training.distributed_init_method or "")
        return rank

    return wrapped


@contextmanager
def _telling() -> Iterator[None]:
    """Tell the other ranks how the block ended."""
    global _current
    try:
        yield
    except BaseException as error:
        lifeline, _current = _current, None
        if lifeline is not None:
            over = isinstance(error, AllRanksError) or (
                isinstance(error, SystemExit) and not error.code
            )
            # Then the line of the other rank is under way, and after it the end of this process.
            followed = collective_failed(error) and lifeline.other_ended.wait(_PATIENCE)
            if followed or lifeline.other_ended.is_set():
                time.sleep(2 * _FOR_CHECKPOINT)
            lifeline.leave(None if over else cause_of(error))
        raise
    lifeline, _current = _current, None
    if lifeline is not None:
        lifeline.leave()


def _ending_together(distributed_main: Callable) -> Callable:
    """A rank that fails or is killed ends the other ranks within seconds, each with one line that
    names it and the cause; fairseq's wait in their next collective operation."""

    @wraps(distributed_main)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _telling():
            return distributed_main(*args, **kwargs)

    return wrapped


def _written_whole(save_checkpoint: Callable) -> Callable:
    """A rank that is to end because of another first writes the checkpoint that it has begun."""

    @wraps(save_checkpoint)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _writing:
            return save_checkpoint(*args, **kwargs)

    return wrapped


_DISTRIBUTED = "fairseq.distributed.utils"
PATCHES = (
    Patch(_DISTRIBUTED, "distributed_init", _connected, Scope.ERRORS),
    Patch(_DISTRIBUTED, "distributed_main", _ending_together, Scope.ERRORS),
    Patch("fairseq.checkpoint_utils", "save_checkpoint", _written_whole, Scope.ERRORS),
)
