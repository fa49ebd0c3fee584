"""`admin-nmt prune-sweep`: argument parsing of `pruning.sweep`."""

import argparse
import hashlib
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from admin_nmt.cli._heads import (
    add_measuring_arguments,
    add_model_arguments,
    add_search_arguments,
    load,
    measure_importance,
    require_checkpoints,
    search_options,
)
from admin_nmt.errors import UsageError

if TYPE_CHECKING:
    from admin_nmt.modules.heads import Head

HELP = "curves of BLEU over the share of heads removed, by kind and by order"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Models, test set, curves."""
    add_model_arguments(parser, several=True)
    add_search_arguments(parser)
    add_measuring_arguments(parser)
    curves = parser.add_argument_group("curves")
    curves.add_argument(
        "--step", type=float, default=0.1, help="share of heads per step (default: %(default)s)"
    )
    curves.add_argument(
        "--largest", type=float, default=0.9, help="last share (default: %(default)s)"
    )
    curves.add_argument(
        "--groups",
        nargs="+",
        choices=("EAD", "E", "A", "D"),
        default=["EAD", "E", "A", "D"],
        help="all kinds together (EAD), encoder self- (E), encoder-decoder (A), decoder "
        "self-attention (D) alone (default: all four)",
    )
    curves.add_argument(
        "--random-orders",
        type=int,
        default=1,
        metavar="N",
        help="random orders as a control (default: %(default)s; 0 for none)",
    )
    curves.add_argument(
        "--rerank", action="store_true", help="also measure importance again after each step"
    )
    curves.add_argument(
        "--importance", metavar="FILE", help="scores written by 'admin-nmt importance'"
    )


def run(args: argparse.Namespace) -> None:
    """Plan and measure the curves of every checkpoint, write sweep.json and sweep.png, print."""
    options = search_options(args)
    if args.random_orders < 0:
        raise UsageError(f"--random-orders {args.random_orders}: give a number of at least 0")

    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.analysis.plots import plot_panels
    from admin_nmt.pruning.heads import load_measurements
    from admin_nmt.pruning.masked_translation import MaskedTranslator, TestSet
    from admin_nmt.pruning.reports import sweep_table
    from admin_nmt.pruning.sweep import fractions, panels, save_curves, translate_curves

    steps = fractions(args.step, args.largest)
    known = load_measurements(args.importance) if args.importance else None
    require_checkpoints(args.path)
    curves = []
    for path in args.path:
        loaded = load(args, path, args.gen_subset)
        test_set = TestSet(
            args.data, args.gen_subset, loaded.task.cfg.target_lang, options, args.output,
            args.reference, args.max_sentences,
        )  # fmt: skip
        planned = _plan(args, loaded, known, steps)
        curves += translate_curves(MaskedTranslator(loaded, test_set), planned, steps)
        described = {
            "data": args.data,
            "subset": args.gen_subset,
            "importance": args.importance or f"measured, by {args.granularity}",
            "signature": test_set.signature,
        }
        # After every checkpoint: an interruption costs at most one.
        save_curves(curves, described, Path(args.output) / "sweep.json")
    sys.stdout.write(sweep_table(curves) + "\n")
    plot_panels(
        panels(curves), Path(args.output) / "sweep.png", xlabel="heads removed, %", ylabel="BLEU"
    )


def _plan(args: argparse.Namespace, loaded: Any, known: Any, steps: list[float]) -> list:
    """(group, order, heads removed at each step) of every curve of one checkpoint."""
    from admin_nmt.files import make_directory
    from admin_nmt.pruning.heads import measurement_of, remembered
    from admin_nmt.pruning.policies import random_order
    from admin_nmt.pruning.sweep import removed_by, removed_reranked

    def measure_order(removed: "Collection[Head]" = ()) -> list:
        settings = [
            str(Path(args.data).absolute()), args.subset, args.granularity, args.max_tokens,
            args.max_batches, args.seed, *sorted(map(str, removed)),
        ]  # fmt: skip
        name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:20]
        folder = make_directory(Path(args.output) / "importance" / loaded.fingerprint[:16])
        return remembered(folder / f"{name}.json", lambda: measure_importance(args, loaded)).order()

    layout = loaded.layout
    groups = [group for group in args.groups if any(sum(layout.get(kind, ())) for kind in group)]
    if not groups:
        raise UsageError(f"{loaded.path}: no heads to remove with --groups {' '.join(args.groups)}")
    if known is None:
        order = measure_order()
    else:
        order = measurement_of(known, loaded.fingerprint, loaded.path, args.importance).order()
    planned = []
    for group in groups:
        planned.append((group, "importance", removed_by(order, layout, group, steps)))
        if args.rerank:
            heads = removed_reranked(measure_order, loaded.model, layout, group, steps)
            planned.append((group, "rerank", heads))
        for seed in range(args.seed, args.seed + args.random_orders):
            heads = removed_by(random_order(layout, seed), layout, group, steps)
            planned.append((group, f"random {seed}", heads))
    return planned
