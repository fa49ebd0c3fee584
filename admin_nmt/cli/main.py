"""Dispatch of `admin-nmt SUBCOMMAND`.

Each subcommand is a module of this folder with three names:

- `HELP`, one line;
- `add_arguments(parser)`, which imports nothing heavy, so that `--help` stays quick;
- `run(args)`, which returns the exit code (None counts as 0) and raises `UserError` on bad input.

Subcommands that need fairseq import `admin_nmt.registration` before anything else that imports
fairseq: `admin-nmt` defers registration, and it must not start halfway into one of our modules.
A module with `PASSES_OPTIONS = True` gets options it did not define as `args.fairseq_args`.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from admin_nmt import __version__
from admin_nmt.errors import UserError
from admin_nmt.host import quiet

#: Subcommand -> module in this folder.
SUBCOMMANDS = {
    "profile": "profile",
    "prepare": "prepare",
    "average": "average",
    "evaluate": "evaluate",
    "score": "score",
    "compare": "compare",
    "convert": "convert",
    "extend-vocabulary": "extend_vocabulary",
    "fold": "fold",
    "backtranslate": "backtranslate",
    "distill": "distill",
    "export": "export",
    "translate": "translate",
    "mbr": "mbr",
    "serve": "serve",
    "analyze": "analyze",
    "importance": "importance",
    "ablate": "ablate",
    "prune": "prune",
    "prune-sweep": "prune_sweep",
    "report": "report",
    "doctor": "doctor",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of `admin-nmt` with one sub-parser per subcommand."""
    parser = argparse.ArgumentParser(
        prog="admin-nmt",
        description="Tools around deep Transformers for machine translation with fairseq.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"admin-nmt {__version__}")
    subparsers = parser.add_subparsers(metavar="SUBCOMMAND", required=True, dest="subcommand")
    for name, module_name in SUBCOMMANDS.items():
        module = importlib.import_module(f"admin_nmt.cli.{module_name}")
        subparser = subparsers.add_parser(
            name, help=module.HELP, description=module.HELP, allow_abbrev=False
        )
        module.add_arguments(subparser)
        subparser.set_defaults(
            run=module.run, passes_options=getattr(module, "PASSES_OPTIONS", False)
        )
    return parser


def _explain(error: Exception) -> str | None:
    """The line for a user, or None where a traceback says more."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    from admin_nmt.host.errors import describe_failure  # imports PyTorch

    return describe_failure(error)


def _drop_unwritten() -> None:
    """Forget output that cannot be written: Python would try again at its end, and fail with exit code 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Services may start a program without standard streams, where Python has None."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; a `UserError` becomes one line on stderr and its exit code."""
    _open_closed_streams()
    parser = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown and not args.passes_options:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.fairseq_args = unknown

    from admin_nmt.progress import LogHandler  # not for --help, which shall be quick

    quiet.configure_logging([LogHandler()])
    quiet.install()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files need not be text, nor does every locale have all letters.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = args.run(args) or 0
        sys.stdout.flush()  # here a full disk can still be told
        return code
    except BrokenPipeError:
        return 1  # the reader of our output (`| head`) went away, which is not an error
    except Exception as error:
        line = _explain(error)
        if line is None or os.environ.get("ADMIN_NMT_TRACEBACK") == "1":
            raise
        print(f"admin-nmt {args.subcommand}: error: {line}", file=sys.stderr)  # noqa: T201
        return error.exit_code if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print(f"admin-nmt {args.subcommand}: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    finally:
        _drop_unwritten()
