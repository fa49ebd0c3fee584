"""`admin-nmt prune-sweep`: argument parsing of `pruning.sweep`."""

import argparse
import sys
from pathlib import Path

from admin_nmt.cli._heads import (
    add_evaluation_arguments,
    add_measuring_arguments,
    add_model_arguments,
    add_normalize_argument,
    evaluation_options,
    load,
    measuring_options,
    require_checkpoints,
)

HELP = "curves of BLEU over the share of heads removed, by kind and by order"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Models, test set, curves."""
    add_model_arguments(parser, several=True)
    add_evaluation_arguments(parser)
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
    add_normalize_argument(curves)


def run(args: argparse.Namespace) -> None:
    """Plan and measure the curves of every checkpoint, write sweep.json and sweep.png, print."""
    options = evaluation_options(args)

    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.analysis.plots import plot_panels
    from admin_nmt.data.data_folder import pairs_of
    from admin_nmt.pruning.masked_translation import MaskedTranslator, TestSet
    from admin_nmt.pruning.orders import MeasuredOrders
    from admin_nmt.pruning.records import load_measurements, measurement_of
    from admin_nmt.pruning.reports import sweep_table
    from admin_nmt.pruning.sweep import (
        SweepOptions,
        plan_curves,
        save_curves,
        sweep_panels,
        translate_curves,
    )

    wanted = SweepOptions(
        args.groups, args.step, args.largest, args.rerank, args.random_orders, args.seed
    )
    known = load_measurements(args.importance) if args.importance else None
    if known is None or args.rerank:
        pairs_of(args.data, args.subset, "--subset")  # refuses one that is not there
    require_checkpoints(args.path)
    curves = []
    for path in args.path:
        loaded = load(args, path, args.gen_subset)
        test_set = TestSet(
            args.data, args.gen_subset, loaded.task.cfg.target_lang, options, args.output,
            args.reference, args.max_sentences,
        )  # fmt: skip
        order = None
        if known is not None:
            measurement = measurement_of(known, loaded.fingerprint, path, args.importance)
            order = measurement.order(args.normalize)
        orders = MeasuredOrders(
            loaded, args.data, measuring_options(args), args.output, args.normalize
        )
        planned = plan_curves(wanted, loaded, orders.order, order)
        curves += translate_curves(MaskedTranslator(loaded, test_set), planned, wanted.steps)
        described = {
            "data": args.data,
            "subset": args.gen_subset,
            "importance": args.importance or f"measured, by {args.granularity}",
            "normalize": args.normalize,
            "signature": test_set.signature,
        }
        # After every checkpoint: an interruption costs at most one.
        save_curves(curves, described, Path(args.output) / "sweep.json")
    sys.stdout.write(sweep_table(curves) + "\n")
    plot_panels(
        sweep_panels(curves),
        Path(args.output) / "sweep.png",
        xlabel="heads removed, %",
        ylabel="BLEU",
    )
