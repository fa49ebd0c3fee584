"""`admin-nmt extend-vocabulary`: argument parsing of `checkpoints.vocabulary`."""

import argparse
import sys
from pathlib import Path

HELP = "give a checkpoint the vocabulary of another data folder, to fine-tune it there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One checkpoint in, one out, and the folders of both vocabularies."""
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint of a Transformer")
    parser.add_argument("data", metavar="DATA", help="data folder with the new dictionaries")
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="the checkpoint for DATA's vocabulary"
    )
    parser.add_argument(
        "--old-data",
        metavar="DIR",
        help="folder with the dictionaries that CKPT was trained with (default: where it says)",
    )
    parser.add_argument("--source-lang", metavar="LANG", help="where CKPT does not say")
    parser.add_argument("--target-lang", metavar="LANG", help="where CKPT does not say")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")


def run(args: argparse.Namespace) -> int:
    """Take the rows of shared words over, write, say what became of the words."""
    from admin_nmt.outputs import require_files

    output = Path(args.output)
    require_files({"--output": output}, [args.checkpoint], args.force)

    import admin_nmt.registration  # noqa: F401
    from admin_nmt.checkpoints import Checkpoint, extend_vocabulary

    checkpoint, changes = extend_vocabulary(
        Checkpoint.open(args.checkpoint),
        args.data,
        old_data=args.old_data,
        source_lang=args.source_lang,
        target_lang=args.target_lang,
    )
    checkpoint.save(output)
    lines = [change.line() for change in changes]
    lines.append(
        f"{output} fits {args.data}: fairseq-train with --finetune-from-model {output} and a new --save-dir"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
