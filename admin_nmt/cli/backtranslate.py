"""`admin-nmt backtranslate`: argument parsing of `synthetic_data.back_translation`."""

import argparse
import sys

from admin_nmt.cli._bulk import add_bulk_arguments, bulk_options
from admin_nmt.cli._translation import add_search_arguments, search_options

HELP = (
    "training data with monolingual target text, translated by a reverse model (back-translation)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The reverse model, the data, the text, the search."""
    parser.add_argument(
        "reverse",
        metavar="DIR_OR_CKPT",
        help="model from target to source language: folder made by 'admin-nmt export', or a checkpoint",
    )
    parser.add_argument("data", metavar="DATA", help="data folder that the model was trained on")
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="raw target sentences, one a line (.gz too)"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for everything")
    add_search_arguments(parser, "pairs with the N best of each sentence (default 1)")
    tags = parser.add_mutually_exclusive_group()
    tags.add_argument(
        "--tag", default="<BT>", metavar="WORD", help="before each translated source (default <BT>)"
    )
    tags.add_argument("--no-tag", dest="tag", action="store_const", const=None, help="no such word")
    parser.add_argument(
        "--ratio",
        type=float,
        default=1.0,
        metavar="R",
        help="new pairs for each genuine one in an epoch (default 1); decides on --upsample-primary",
    )
    parser.add_argument(
        "--clean-ratio",
        type=float,
        default=3.0,
        metavar="R",
        help="leave out pairs with one side more than R times as long as the other (default 3)",
    )
    add_bulk_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Translate and write."""
    from admin_nmt.synthetic_data import back_translate

    options = bulk_options(args)
    found = back_translate(
        args.reverse,
        args.data,
        args.input,
        args.output,
        search_options(args),
        tag=args.tag,
        ratio=args.ratio,
        clean_ratio=args.clean_ratio,
        **options,
    )
    reasons = ", ".join(f"{number} {reason}" for reason, number in found.left_out.items())
    sys.stdout.write(
        f"{found.data}: {found.num_pairs} pairs from {found.num_lines} lines as {found.subset} "
        f"(left out: {reasons or 'none'}) beside {found.num_genuine} genuine ones; train with "
        f"-s {found.source_lang} -t {found.target_lang} --upsample-primary {found.upsample_primary}\n"
    )
    return 0
