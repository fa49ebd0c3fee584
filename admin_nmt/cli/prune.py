"""`admin-nmt prune`: argument parsing of `pruning.policies` and `pruning.removal`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from admin_nmt.cli._heads import (
    add_measuring_arguments,
    add_model_arguments,
    load,
    measure_importance,
    require_outputs,
)
from admin_nmt.errors import UsageError
from admin_nmt.modules.attention_kinds import ATTENTION_KINDS

HELP = "remove attention heads from a checkpoint for good"

_KINDS = {kind.budget: letter for letter, kind in ATTENTION_KINDS.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, policy, and what the order of heads comes from."""
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="the pruned checkpoint")
    parser.add_argument(
        "--list", metavar="FILE", help="write the removed heads to this file as well (JSON)"
    )
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
    order.add_argument("--random", action="store_true", help="random order, as a control")
    add_measuring_arguments(parser)


def check_policy(args: argparse.Namespace) -> None:
    """Refuse options that exclude each other, by name.

    Raises:
        UsageError: no policy, or two of them.
    """
    budgets = [f"--{name.replace('_', '-')}" for name in _KINDS if getattr(args, name) is not None]
    given = ["--fraction"] * (args.fraction is not None) + budgets[:1]
    given += ["--heads"] * (args.heads is not None)
    if not given:
        raise UsageError(
            "say which heads: --fraction, --encoder-self / --decoder-self / --cross, or --heads"
        )
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} exclude each other")
    if args.protect_cross and args.fraction is None:
        raise UsageError("--protect-cross needs --fraction")
    if args.importance and args.random:
        raise UsageError("--importance and --random exclude each other")
    if args.heads is not None:
        for option in ("uniform", "random", "importance"):
            if getattr(args, option):
                raise UsageError(f"--heads and --{option} exclude each other")


def choose_heads(args: argparse.Namespace, loaded: Any) -> set:
    """The heads that the options mean, of the model `loaded`, and those that it masks: they count
    as the first ones of any order."""
    from admin_nmt.host.heads import read_heads
    from admin_nmt.modules.heads import require_heads
    from admin_nmt.pruning import policies
    from admin_nmt.pruning.removal import masked_heads

    layout, masked = loaded.layout, masked_heads(loaded)
    if args.heads is not None:
        heads = set(read_heads(args.heads, "--heads"))
        require_heads(heads, layout)
        heads |= masked
        policies.require_min_heads(heads, layout, args.min_heads)
        return heads
    fractions = {
        kind: getattr(args, name)
        for name, kind in _KINDS.items()
        if getattr(args, name) is not None
    }
    policies.require_kinds(fractions, layout)
    if args.fraction is None:
        budgets = policies.kind_budgets(layout, fractions)
    else:
        budgets = policies.global_budget(layout, args.fraction, args.protect_cross)
        fractions = dict.fromkeys(budgets[0].kinds, args.fraction)

    def chosen(order: list) -> set:
        order = sorted(order, key=lambda head: head not in masked)
        if args.uniform:
            heads = policies.choose_uniform(order, layout, fractions, args.min_heads)
        else:
            heads = policies.choose(order, layout, budgets, args.min_heads)
        if not masked <= heads:
            heads |= masked
            origin = "the mask of the checkpoint"
            policies.require_min_heads(heads, layout, args.min_heads, origin)
            if args.uniform:
                policies.require_uniform(heads, layout, fractions, origin)
        return heads

    # Budgets that cannot be met are found before anything is measured.
    chosen(policies.random_order(layout, 0))
    return chosen(head_order(args, loaded))


def head_order(args: argparse.Namespace, loaded: Any) -> list:
    """All heads, the first to go first."""
    from admin_nmt.pruning.heads import load_measurements, measurement_of
    from admin_nmt.pruning.policies import random_order

    if args.random:
        return random_order(loaded.layout, args.seed)
    if args.importance:
        measurements = load_measurements(args.importance)
        return measurement_of(
            measurements, loaded.fingerprint, loaded.path, args.importance
        ).order()
    return measure_importance(args, loaded).order()


def run(args: argparse.Namespace) -> None:
    """Choose, remove, write, print."""
    check_policy(args)
    if Path(args.output).absolute().resolve() == Path(args.path).absolute().resolve():
        raise UsageError(f"--output {args.output} is the checkpoint itself: give another name")
    require_outputs(args.output, args.list, inputs=[args.path, args.importance])

    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.checkpoints.tensors import num_parameters
    from admin_nmt.pruning.heads import save_removed
    from admin_nmt.pruning.removal import prune
    from admin_nmt.pruning.reports import removal_report

    loaded = load(args, args.path, args.subset)
    removed = choose_heads(args, loaded)
    checkpoint = prune(loaded.checkpoint, removed)
    checkpoint.save(args.output)
    if args.list:
        save_removed(removed, args.path, loaded.fingerprint, loaded.layout, args.list)
    parameters = num_parameters(loaded.model.state_dict()), num_parameters(checkpoint.weights)
    sys.stdout.write(removal_report(loaded.layout, removed, parameters, args.output) + "\n")
