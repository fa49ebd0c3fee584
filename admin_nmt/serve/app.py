"""The ASGI application: a page, `POST /translate` and what clients of LibreTranslate ask beside it."""

import asyncio
import base64
import hashlib
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from admin_nmt.serve.batching import Batcher, Busy
from admin_nmt.serve.messages import Offer, Refused, parse, read_fields
from admin_nmt.serve.rate import RateLimit

Result = TypeVar("Result")

#: `translate(nbest, lines)`: for every line its translations, best first, at most `nbest`.
Translate = Callable[[int, list[str]], list[list[str]]]

PAGE = "page.html"


def create_app(
    translate: Translate,
    offer: Offer,
    *,
    req_limit: int = 600,
    batch_size: int = 64,
    wait: float = 0.005,
    page: str | None = None,
) -> Starlette:
    """The application.

    Args:
        translate: called on one thread with lines of any number of requests.
        offer: languages and limits.
        req_limit: translations that a client may ask for in a minute; 0 for no limit.
        batch_size: most lines in a call of `translate`.
        wait: seconds that a line waits for others at an idle server.
        page: another page (HTML) than ours.
    """
    service = _Service(translate, offer, RateLimit(req_limit), batch_size, wait)
    page = files(__package__).joinpath(PAGE).read_text(encoding="utf-8") if page is None else page
    headers = {"Content-Security-Policy": policy(page), "Cache-Control": "no-cache"}

    async def show_page(request: HTTPRequest) -> Response:
        return HTMLResponse(page, headers=headers)

    return Starlette(
        routes=[
            Route("/", show_page),
            Route("/translate", service.translate, methods=["POST"]),
            Route("/languages", service.languages),
            Route("/frontend/settings", service.settings),
            Route("/health", service.health),
        ],
        exception_handlers={Refused: _refused, HTTPException: _http_error, Exception: _failed},
        lifespan=service.lifespan,
    )


def policy(page: str) -> str:
    """A Content-Security-Policy that lets the page run its own script and style and ask us only.

    >>> policy("<style>p {}</style>")[:37]
    "default-src 'none'; connect-src 'self"
    """
    parts = ["default-src 'none'", "connect-src 'self'", "img-src data:", "base-uri 'none'"]
    parts += ["form-action 'none'", "frame-ancestors 'none'"]
    for name in ("script", "style"):
        texts = re.findall(rf"<{name}>(.*?)</{name}>", page, re.S)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in texts)
        parts.append(" ".join([f"{name}-src", *(f"'sha256-{d.decode()}'" for d in digests)]))
    return "; ".join(parts)


class _Service:
    """The endpoints over one batcher."""

    def __init__(
        self, translate: Translate, offer: Offer, rate: RateLimit, batch_size: int, wait: float
    ) -> None:
        self.offer = offer
        self.rate = rate
        self.batcher: Batcher[str, list[str]] = Batcher(translate, batch_size, wait)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """The server calls the end when all requests are answered."""
        yield
        await self.batcher.close()

    async def translate(self, request: HTTPRequest) -> Response:
        """`POST /translate`."""
        delay = self.rate.delay(request.client.host if request.client else "")
        if delay:
            seconds = str(math.ceil(delay))
            raise Refused(
                429,
                f"more than {self.rate.per_minute} requests a minute: wait {seconds} s",
                **{"Retry-After": seconds},
            )
        try:
            body = await _body(request, self.offer.max_bytes)
            wanted = parse(read_fields(body, request.headers.get("content-type", "")), self.offer)
            found = await _while_connected(
                request, self.batcher.submit(wanted.lines, 1 + wanted.alternatives)
            )
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except asyncio.CancelledError:  # by uvicorn, when the time to finish is over
            raise _later("the server is ending") from None
        except Busy:
            raise _later("too much text is waiting") from None
        return JSONResponse(wanted.answer(found))

    async def languages(self, request: HTTPRequest) -> Response:
        """`GET /languages`."""
        source, target = self.offer.source, self.offer.target
        return JSONResponse(
            [
                {"code": source, "name": source, "targets": [target]},
                {"code": target, "name": target, "targets": []},
            ]
        )

    async def settings(self, request: HTTPRequest) -> Response:
        """`GET /frontend/settings`, what a page wants to know."""
        offer = self.offer
        return JSONResponse(
            {
                "apiKeys": False,
                "charLimit": offer.char_limit,
                "filesTranslation": False,
                "keyRequired": False,
                "language": {
                    "source": {"code": offer.source, "name": offer.source},
                    "target": {"code": offer.target, "name": offer.target},
                },
                "maxAlternatives": offer.max_alternatives,
                "suggestions": False,
            }
        )

    async def health(self, request: HTTPRequest) -> Response:
        """`GET /health`."""
        batcher = self.batcher
        return JSONResponse(
            {
                "status": "ok",
                "lines": batcher.num_items,
                "batches": batcher.num_batches,
                "waiting": batcher.num_waiting,
            }
        )


def _later(reason: str) -> Refused:
    """The answer to a request that may be made again."""
    return Refused(503, f"{reason}: try again later", **{"Retry-After": "5"})


async def _body(request: HTTPRequest, max_bytes: int) -> bytes:
    """The body, of which no more is read than may be."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise Refused(413, f"the body has more than {max_bytes} bytes")
    return bytes(body)


async def _while_connected(request: HTTPRequest, wanted: Awaitable[Result]) -> Result:
    """The result of `wanted`, which is cancelled when the client goes away.

    Raises:
        ClientDisconnect: it did.
    """
    working = asyncio.ensure_future(wanted)
    # The body has been read: the next message says that the client is gone.
    gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _refused(request: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"error": error.message}, error.status, error.headers)


async def _http_error(request: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse({"error": message}, error.status_code, error.headers)


async def _failed(request: HTTPRequest, error: Exception) -> Response:
    """What went wrong is in the server's log, and no business of the client."""
    return JSONResponse({"error": "the translation failed; the server's log says why"}, 500)
