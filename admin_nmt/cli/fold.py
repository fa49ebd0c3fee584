"""`admin-nmt fold`: argument parsing of `export.plain_transformer`."""

import argparse
import sys
from pathlib import Path

HELP = "turn a checkpoint of admin_transformer into one of fairseq's own transformer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One checkpoint in, one out."""
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint of an admin_transformer")
    parser.add_argument("--output", required=True, metavar="FILE", help="the folded checkpoint")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")


def run(args: argparse.Namespace) -> int:
    """Fold, compare the logits of both models on random sentences, write."""
    from admin_nmt.outputs import require_files

    output = Path(args.output)
    require_files({"--output": output}, [args.checkpoint], args.force)

    import admin_nmt.registration  # noqa: F401
    from admin_nmt.checkpoints.checkpoint import Checkpoint
    from admin_nmt.export.plain_transformer import fold
    from admin_nmt.export.verification import compare_logits

    checkpoint = Checkpoint.open(args.checkpoint)
    folded, report = fold(checkpoint)
    agreement = compare_logits(checkpoint, folded)
    folded.save(output)
    lines = [*report.lines(), agreement.line(), f"{output} is a plain fairseq transformer"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
