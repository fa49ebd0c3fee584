"""`admin-nmt convert`: argument parsing of `interop`."""

import argparse
import sys
from pathlib import Path

from admin_nmt.errors import UsageError

HELP = "turn a checkpoint of another repository into one that loads here"

#: As `interop.registry.ORIGINS`, which is slow to import.
ORIGINS = ("transformer-clinic", "deepnmt", "admin-torch", "r-drop", "fairseq")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One checkpoint in, one out."""
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint of the other repository")
    parser.add_argument(
        "--from", required=True, dest="origin", metavar="REPO", help=f"one of {', '.join(ORIGINS)}"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the converted checkpoint")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")


def run(args: argparse.Namespace) -> int:
    """Convert, compute once with the result, write."""
    if args.origin not in ORIGINS:
        raise UsageError(f"--from {args.origin}: choose from {', '.join(ORIGINS)}")
    from admin_nmt.outputs import require_files

    output = Path(args.output)
    require_files({"--output": output}, [args.checkpoint], args.force)

    import admin_nmt.registration  # noqa: F401
    from admin_nmt.interop.registry import ORIGINS as CONVERTERS

    converted = CONVERTERS[args.origin](args.checkpoint)
    converted.checkpoint.save(output)
    lines = [*converted.lines, f"{output} is a checkpoint of {converted.checkpoint.family}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
