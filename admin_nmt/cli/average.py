"""`admin-nmt average`: argument parsing of `checkpoints.averaging`."""

import argparse
import sys
from pathlib import Path

HELP = "average the parameters of the last checkpoints of a training run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options are those of fairseq's scripts/average_checkpoints.py."""
    parser.add_argument(
        "--inputs",
        nargs="+",
        required=True,
        metavar="PATH",
        help="the folder of the run (with one of the two options below), or checkpoint files",
    )
    count = parser.add_mutually_exclusive_group()
    count.add_argument(
        "--num-epoch-checkpoints",
        type=int,
        metavar="K",
        help="take the last K checkpoints written at the end of an epoch (checkpointE.pt)",
    )
    count.add_argument(
        "--num-update-checkpoints",
        type=int,
        metavar="K",
        help="take the last K checkpoints written in between (checkpoint_E_U.pt)",
    )
    parser.add_argument(
        "--checkpoint-upper-bound",
        type=int,
        metavar="N",
        help="ignore epochs (or updates) after N",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the averaged checkpoint")


def run(args: argparse.Namespace) -> int:
    """Choose, average, write."""
    from admin_nmt.export.output import require_new_file

    output = Path(args.output)
    require_new_file(output, force=True)

    from admin_nmt.checkpoints import Checkpoint, average
    from admin_nmt.checkpoints.averaging import select_checkpoints

    paths = select_checkpoints(
        args.inputs,
        num_epochs=args.num_epoch_checkpoints,
        num_updates=args.num_update_checkpoints,
        upper_bound=args.checkpoint_upper_bound,
    )
    average([Checkpoint.open(path) for path in paths]).save(output)
    names = "\n".join(f"  {path}" for path in paths)
    sys.stdout.write(f"{output} is the average of\n{names}\n")
    return 0
