"""`admin-nmt average`: argument parsing of `checkpoints.averaging` and `evaluation.better_checkpoint`."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from admin_nmt.cli._languages import add_language_arguments
from admin_nmt.errors import UsageError

#: Names that fairseq writes and reads; `checkpoint.best_METRIC_VALUE.pt` with `--keep-best-checkpoints`.
_TRAINING_CHECKPOINT = re.compile(r"(crash|checkpoint(_last|_best|\.best_.+|\d+|_\d+_\d+))\.pt")

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
    parser.add_argument(
        "--keep-better",
        metavar="DATA",
        help="write checkpoint_best.pt of the folder in place of the average if its loss on the "
        "validation set of this data folder is lower (nll_loss)",
    )
    add_language_arguments(parser, "of DATA; default: as the run was trained")
    parser.add_argument("--cpu", action="store_true", help="do not measure the loss on a GPU")


def _require_apart(output: Path, paths: Sequence[Path]) -> None:
    """Refuse an output that replaces what is averaged, or what its training goes on from."""
    inputs = [path.resolve() for path in paths]
    place = output.resolve()
    beside = place.parent in {path.parent for path in inputs}
    if place in inputs or (beside and _TRAINING_CHECKPOINT.fullmatch(place.name)):
        raise UsageError(f"--output {output} is a checkpoint of the training: give another name")


def run(args: argparse.Namespace) -> int:
    """Choose, average, compare if asked to, write."""
    from admin_nmt.outputs import require_files

    output, best = Path(args.output), None
    if args.keep_better:
        import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
        from admin_nmt.evaluation.better_checkpoint import best_of_folder, keep_better

        best = best_of_folder(args.inputs)
    require_files({"--output": output}, [best])

    from admin_nmt.checkpoints import Checkpoint, average
    from admin_nmt.checkpoints.averaging import select_checkpoints

    paths = select_checkpoints(
        args.inputs,
        num_epochs=args.num_epoch_checkpoints,
        num_updates=args.num_update_checkpoints,
        upper_bound=args.checkpoint_upper_bound,
    )
    _require_apart(output, paths)
    names = "\n".join(f"  {path}" for path in paths)
    if best is None:
        average([Checkpoint.open(path) for path in paths]).save(output)
        sys.stdout.write(f"{output} is the average of\n{names}\n")
        return 0
    better = keep_better(
        paths, best, args.keep_better,
        source=args.source_lang, target=args.target_lang, cpu=args.cpu,
    )  # fmt: skip
    better.checkpoint.save(output)
    kept = "the average" if better.is_average else f"{best}, not the average"
    sys.stdout.write(
        f"{output} is {kept} of\n{names}\n"
        f"validation loss, bits per target token: average {better.average_loss:.3f}, "
        f"{best.name} {better.best_loss:.3f}; kept: "
        f"{'the average' if better.is_average else best.name}\n"
    )
    return 0
