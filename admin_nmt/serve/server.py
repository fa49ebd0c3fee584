"""Run the application over a translator until a signal ends it."""

import ipaddress
import logging
import socket
from contextlib import ExitStack, suppress

import uvicorn
from starlette.applications import Starlette

from admin_nmt.errors import UserError
from admin_nmt.export.translator import Translator
from admin_nmt.serve.app import Translate, create_app
from admin_nmt.serve.messages import Offer

logger = logging.getLogger(__name__)

#: Seconds that requests have to finish after a signal.
GRACE = 30


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, before a model is loaded: clients that come early wait.

    Args:
        host: name or address of this machine.
        port: 0 for any that is free.

    Raises:
        UserError: no such address here, or the port is taken.
    """
    try:
        with ExitStack() as stack:
            # Only where a socket names its protocol does asyncio switch Nagle's algorithm off, with
            # which every answer but the first of a connection would take 40 ms more.
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )[0]
            listening = stack.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(2048)
            stack.pop_all()
            return listening
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen on --host {host} --port {port} ({reason}): give another one, "
            "or --port 0 for any that is free"
        ) from error


def url(listening: socket.socket) -> str:
    """The address to open in a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def work(translator: Translator, beam: int, lenpen: float) -> Translate:
    """What the application calls to translate lines."""

    def translate(nbest: int, lines: list[str]) -> list[list[str]]:
        found = translator.translate_nbest(lines, nbest, beam, lenpen)
        return [[translation.text for translation in line] for line in found]

    return translate


def http_server(app: Starlette) -> uvicorn.Server:
    """uvicorn over an application: quiet, and without web sockets."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
    )


def serve(
    translator: Translator,
    listening: socket.socket,
    *,
    beam: int = 5,
    lenpen: float = 1.0,
    char_limit: int = 5000,
    req_limit: int = 600,
    batch_size: int = 64,
) -> None:
    """Answer until SIGINT or SIGTERM; requests that are under way are answered first.

    After SIGTERM the process ends by that signal, as it would without us.

    Args:
        translator: of known languages, as `load_translator` makes it.
        listening: from `listen`.
        beam: hypotheses kept at every step; one less are offered as alternatives.
        lenpen: exponent of the length by which scores are divided.
        char_limit: most characters of a request.
        req_limit: requests that a client may make in a minute; 0 for no limit.
        batch_size: most lines that are translated together.
    """
    assert translator.languages is not None
    offer = Offer(*translator.languages, char_limit, beam - 1)
    translate = work(translator, beam, lenpen)
    translate(1, ["1"])  # loads what the first request would wait for
    app = create_app(translate, offer, req_limit=req_limit, batch_size=batch_size)
    if not ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback:
        logger.warning("other machines reach this server; it has neither passwords nor encryption")
    logger.info("%s to %s on %s (Ctrl-C ends)", offer.source, offer.target, url(listening))
    with suppress(KeyboardInterrupt):  # which uvicorn raises again when all is done
        http_server(app).run(sockets=[listening])
    logger.info("ended")
