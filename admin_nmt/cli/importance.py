"""`admin-nmt importance`: argument parsing of `pruning.measuring`."""

import argparse
import sys

from admin_nmt.cli._heads import (
    add_measuring_arguments,
    add_model_arguments,
    load,
    measuring_options,
    require_checkpoints,
)
from admin_nmt.outputs import require_files, require_plot

HELP = "measure how much every attention head matters (arXiv 1905.10650)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, data, definition, and where the scores go."""
    add_model_arguments(parser, several=True)
    add_measuring_arguments(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="scores to write (JSON)")
    parser.add_argument("--plot", metavar="FILE", help="also draw them (.png, .pdf or .svg)")
    parser.epilog = (
        "On several GPUs or processes: torchrun --no-python --nproc_per_node N admin-nmt importance "
        "..."
    )


def run(args: argparse.Namespace) -> None:
    """Measure every checkpoint, write, print, and draw if asked to."""
    require_files({"--output": args.output, "--plot": args.plot}, args.path)
    require_plot(args.plot)

    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.pruning.importance import normalize_by_layer
    from admin_nmt.pruning.measuring import measure, several_ranks
    from admin_nmt.pruning.records import save_measurements
    from admin_nmt.pruning.reports import importance_table

    require_checkpoints(args.path)
    with several_ranks() as is_first:
        measurements = []
        for path in args.path:
            loaded = load(args, path, args.subset, "--subset")
            measurement = measure(measuring_options(args), loaded)
            measurement.settings["data"] = args.data
            measurements.append(measurement)
        if not is_first:
            return
    save_measurements(measurements, args.output)
    for measurement in measurements:
        sys.stdout.write(importance_table(measurement) + "\n")
    if args.plot:
        from admin_nmt.analysis.plots import plot_head_maps

        titles = args.path if len(args.path) > 1 else [""]
        maps = {
            title: normalize_by_layer(measurement.scores)
            for title, measurement in zip(titles, measurements, strict=True)
        }
        plot_head_maps(maps, args.plot, label="importance (norm 1 in each layer)")
