"""`admin-nmt report`: argument parsing of `report`."""

import argparse
import logging

HELP = "one page (HTML) of training runs side by side: curves, omegas, heads, scores, settings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs in, a page out."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="log of fairseq-train, folder of a run or of its checkpoints, or a study's result file",
    )
    parser.add_argument("--label", nargs="+", metavar="NAME", help="a name for each run")
    parser.add_argument("--output", required=True, metavar="HTML", help="the page")


def run(args: argparse.Namespace) -> None:
    """Read all, write the page."""
    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.outputs import require_files
    from admin_nmt.report.page import require_libraries, write_report
    from admin_nmt.report.runs import read_runs

    require_files({"--output": args.output}, args.runs)
    require_libraries()
    runs = read_runs(args.runs, args.label)
    write_report(runs, args.output)
    logging.getLogger(__name__).info("report in %s", args.output)
