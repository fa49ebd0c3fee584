"""Options of commands that translate whole training sets."""

import argparse
from typing import Any

from admin_nmt.errors import require_at_least_one
from admin_nmt.outputs import require_folder


def add_bulk_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a model runs, and how much at a time."""
    parser.add_argument(
        "--batch-tokens",
        type=int,
        default=4000,
        metavar="N",
        help="subwords in a batch (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")


def bulk_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_bulk_arguments` read, as arguments of `distill` and `back_translate`.

    Raises:
        UsageError: no batch can be so small, or `--output` is a file.
    """
    require_folder(args.output)
    require_at_least_one("--batch-tokens", args.batch_tokens)
    return {
        "threads": args.threads, "device": args.device, "batch_tokens": args.batch_tokens
    }  # fmt: skip
