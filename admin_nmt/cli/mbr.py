"""`admin-nmt mbr`: argument parsing of `evaluation.mbr`."""

import argparse
import logging
from contextlib import ExitStack

from admin_nmt.cli._streams import open_input, open_output

HELP = (
    "choose from each n-best list the translation most similar to all others (minimum Bayes risk)"
)

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The lists, the measure, the weights."""
    parser.add_argument(
        "nbest",
        nargs="?",
        metavar="NBEST",
        help="what 'admin-nmt translate --nbest N' wrote (default: stdin)",
    )
    parser.add_argument("--output", metavar="FILE", help="translations (default: stdout)")
    parser.add_argument("--force", action="store_true", help="replace an existing --output")
    parser.add_argument(
        "--utility",
        choices=("chrf", "bleu"),
        default="chrf",
        help="similarity of two translations (default: %(default)s)",
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="weigh translations by exp(score / T), for lists of beam search (default: equal "
        "weights, for samples)",
    )


def run(args: argparse.Namespace) -> int:
    """List after list."""
    from admin_nmt.evaluation.mbr import choose, count_lists, read_nbest
    from admin_nmt.export.lines import read_lines
    from admin_nmt.outputs import require_files
    from admin_nmt.progress import progress

    require_files({"--output": args.output}, [args.nbest], args.force)
    with ExitStack() as stack:
        source = stack.enter_context(open_input(args.nbest, "the n-best lists"))
        write = stack.enter_context(open_output(args.output))
        total = count_lists(source)
        lists = read_nbest(read_lines(source))
        for nbest in progress(logger, "choosing", "sentences", lists, total=total):
            write(choose(nbest, args.utility, args.temperature) + "\n")
    return 0
