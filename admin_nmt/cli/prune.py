"""`admin-nmt prune`: argument parsing of `pruning.choice` and `pruning.removal`."""

import argparse
import os
import sys
from functools import partial

from admin_nmt.cli._heads import (
    add_measuring_arguments,
    add_model_arguments,
    add_normalize_argument,
    load,
    measuring_options,
)
from admin_nmt.errors import UsageError
from admin_nmt.modules.attention_kinds import ATTENTION_KINDS
from admin_nmt.outputs import require_files

HELP = "remove attention heads from a checkpoint for good"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, policy, and what the order of heads comes from."""
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="the pruned checkpoint")
    parser.add_argument(
        "--list", metavar="FILE", help="write the removed heads to this file as well (JSON)"
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    which = parser.add_argument_group("which heads (fractions between 0 and 1)")
    which.add_argument("--fraction", type=float, metavar="P", help="of all heads, ranked together")
    for kind in ATTENTION_KINDS.values():
        title = f"of the heads of {kind.title}"
        which.add_argument(kind.budget_option, type=float, metavar="P", help=title)
    which.add_argument(
        "--heads",
        metavar="LIST",
        help="just these, such as E:3:1,A:1:2, or a file with such a list",
    )
    which.add_argument(
        "--protect-cross",
        action="store_true",
        help="with --fraction: none of encoder-decoder attention",
    )
    which.add_argument(
        "--uniform",
        action="store_true",
        help="the same number of heads in each layer of a kind; every P is then of each layer, "
        "rounded up",
    )
    which.add_argument(
        "--min-heads",
        type=int,
        default=0,
        metavar="N",
        help="number of heads every layer keeps at least (default: 0)",
    )
    order = parser.add_argument_group("order of removal (default: importance, measured now)")
    order.add_argument(
        "--importance", metavar="FILE", help="scores written by 'admin-nmt importance'"
    )
    add_normalize_argument(order)
    order.add_argument("--random", action="store_true", help="random order, as a control")
    add_measuring_arguments(parser)
    names = ("max_batches", "max_tokens", "granularity", "normalize")
    defaults = {name: parser.get_default(name) for name in names}
    parser.set_defaults(**dict.fromkeys(defaults), importance_defaults=defaults)  # None: not given


def _settle(args: argparse.Namespace) -> None:
    """Fill in the options about importance that were not given.

    Raises:
        UsageError: one was given where nothing is measured, or nothing compared.
    """
    given = {"--heads": args.heads, "--random": args.random, "--importance": args.importance}
    order = next((option for option, value in given.items() if value), None)
    for name, value in args.importance_defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
        elif order and not (order == "--importance" and name == "normalize"):
            raise UsageError(f"--{name.replace('_', '-')} has nothing to act on with {order}")


def run(args: argparse.Namespace) -> None:
    """Choose, remove, write, print."""
    _settle(args)
    outputs = {"--output": args.output, "--list": args.list}
    # `os.path.isfile` takes lists that are longer than a name may be.
    heads = args.heads if args.heads and os.path.isfile(args.heads) else None  # noqa: PTH113
    require_files(outputs, [args.path, args.importance, heads], args.force)

    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.checkpoints.tensors import num_parameters
    from admin_nmt.pruning.choice import Choice, choose_heads
    from admin_nmt.pruning.measuring import measure
    from admin_nmt.pruning.records import save_removed
    from admin_nmt.pruning.removal import prune
    from admin_nmt.pruning.reports import removal_report

    choice = Choice(
        heads=args.heads,
        fraction=args.fraction,
        fractions={
            letter: getattr(args, kind.budget)
            for letter, kind in ATTENTION_KINDS.items()
            if getattr(args, kind.budget) is not None
        },
        protect_cross=args.protect_cross,
        uniform=args.uniform,
        min_heads=args.min_heads,
        importance=args.importance,
        normalize=args.normalize,
        random=args.random,
        seed=args.seed,
    )
    loaded = load(args, args.path, args.subset, "--subset")
    removed = choose_heads(choice, loaded, partial(measure, measuring_options(args)))
    checkpoint = prune(loaded.checkpoint, removed)
    checkpoint.save(args.output)
    if args.list:
        save_removed(removed, args.path, loaded.fingerprint, loaded.layout, args.list)
    parameters = num_parameters(loaded.model.state_dict()), num_parameters(checkpoint.weights)
    sys.stdout.write(removal_report(loaded.layout, removed, parameters, args.output) + "\n")
