"""`admin-nmt distill`: argument parsing of `synthetic_data.sequence_level`."""

import argparse
import sys

from admin_nmt.cli._bulk import add_bulk_arguments, bulk_options
from admin_nmt.cli._translation import add_search_arguments, search_options

HELP = "training data whose targets a teacher has translated (sequence-level distillation)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The teacher, the data, the search."""
    parser.add_argument(
        "teacher", metavar="DIR_OR_CKPT", help="folder made by 'admin-nmt export', or a checkpoint"
    )
    parser.add_argument("data", metavar="DATA", help="data folder that the teacher was trained on")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for everything")
    add_search_arguments(parser, "pairs with the N best of each sentence (default 1)")
    parser.add_argument(
        "--keep-original", action="store_true", help="the original pairs stay, before the new ones"
    )
    add_bulk_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Translate and write."""
    from admin_nmt.synthetic_data import distill

    options = bulk_options(args)
    found = distill(
        args.teacher,
        args.data,
        args.output,
        search_options(args),
        keep_original=args.keep_original,
        **options,
    )
    sys.stdout.write(
        f"{found.data}: {found.num_pairs} training pairs from {found.num_sources} sentences of "
        f"{' and '.join(found.subsets)} ({found.num_repeated} repeated pairs and {found.num_long} "
        f"sentences left out); train with -s {found.source_lang} -t {found.target_lang}\n"
    )
    return 0
