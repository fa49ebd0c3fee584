"""`admin-nmt serve`: argument parsing of `serve.server`."""

import argparse

from admin_nmt.cli._translation import add_engine_arguments, load_engine
from admin_nmt.errors import UsageError, UserError

HELP = "serve translations as a web page and as JSON (LibreTranslate's interface)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the address, the limits, the search."""
    parser.add_argument(
        "model", metavar="DIR_OR_CKPT", help="folder made by 'admin-nmt export', or a checkpoint"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="default 127.0.0.1: this machine alone reaches it; 0.0.0.0 for all",
    )
    parser.add_argument(
        "--port", type=int, default=5000, metavar="N", help="default 5000; 0 for any that is free"
    )
    parser.add_argument(
        "--char-limit", type=int, default=5000, metavar="N", help="of a request (default 5000)"
    )
    parser.add_argument(
        "--req-limit",
        type=int,
        default=600,
        metavar="N",
        help="requests of one address in a minute (default 600); 0 for no limit",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=64,
        metavar="N",
        help="most lines translated together, of any requests (default 64)",
    )
    parser.add_argument("--beam", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--lenpen", type=float, default=1.0, metavar="P", help="default 1")
    add_engine_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Take the port, load the model, serve."""
    from admin_nmt.export.search import Search

    for option, least in (("char_limit", 1), ("req_limit", 0), ("batch_size", 1), ("port", 0)):
        if getattr(args, option) < least:
            name = f"--{option.replace('_', '-')} {getattr(args, option)}"
            raise UsageError(f"{name}: give a number of at least {least}")
    if args.port > 65535:
        raise UsageError(f"--port {args.port}: give a number of at most 65535")
    Search(args.beam, lenpen=args.lenpen)
    try:
        from admin_nmt.serve.server import listen, serve
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed, which serving needs: pip install admin_nmt[serve]"
        ) from error
    with listen(args.host, args.port) as listening:
        serve(
            load_engine(args),
            listening,
            beam=args.beam,
            lenpen=args.lenpen,
            char_limit=args.char_limit,
            req_limit=args.req_limit,
            batch_size=args.batch_size,
        )
