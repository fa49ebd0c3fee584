"""A served application, and a translator that upper-cases, which tests can hold up."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import uvicorn

from admin_nmt.serve.app import create_app
from admin_nmt.serve.messages import Offer
from admin_nmt.serve.server import http_server, listen

OFFER = Offer("de", "en", char_limit=1000)


@dataclass
class Shouting:
    """Upper case, and `nbest` - 1 others that end in their rank; one for an empty line."""

    calls: list[tuple[int, list[str]]] = field(default_factory=list)
    may_go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_go.set()

    def __call__(self, nbest: int, lines: list[str]) -> list[list[str]]:
        self.calls.append((nbest, list(lines)))
        assert self.may_go.wait(30)
        if "bad" in lines:
            raise ValueError("secret")
        ranks = ["", *(str(rank) for rank in range(2, nbest + 1))]
        return [[line.upper() + rank for rank in ranks] if line else [""] for line in lines]


@dataclass
class Served:
    """A running server."""

    server: uvicorn.Server
    port: int
    thread: threading.Thread

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(
        self,
        path: str = "/translate",
        content: Any = None,
        kind: str = "application/json",
        **fields: Any,
    ) -> tuple[int, Any, HTTPResponse]:
        """POST `fields` as JSON (or `content` as it is), or GET: status, decoded JSON, response."""
        connection = self.connect()
        body = json.dumps({"source": "de", "target": "en"} | fields) if fields else content
        connection.request(
            "GET" if body is None else "POST", path, body, {"Content-Type": kind} if body else {}
        )
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        return response.status, answer, response

    def wait_until(self, true: Callable[[dict[str, Any]], bool]) -> None:
        """Ask for the server's health until it is as wanted."""
        end = time.monotonic() + 30
        while not true(health := self.ask("/health")[1]):
            assert time.monotonic() < end, health
            time.sleep(0.01)


@contextmanager
def served(translate: Shouting, **options: Any) -> Iterator[Served]:
    """The application over `translate` on a free port, by our uvicorn on a thread."""
    app = create_app(translate, options.pop("offer", OFFER), **{"req_limit": 0} | options)
    server = http_server(app)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Served(server, listening.getsockname()[1], thread)
        finally:
            translate.may_go.set()
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()
