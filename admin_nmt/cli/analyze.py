"""`admin-nmt analyze`: argument parsing of `analysis.attention`."""

import argparse
import logging
import sys

from admin_nmt.cli._languages import add_language_arguments
from admin_nmt.errors import UsageError
from admin_nmt.outputs import require_folder

HELP = "entropy of attention heads and divergence of neighbouring layers (arXiv 2012.11747)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Models, data, how many tokens, where the report goes."""
    parser.add_argument("data", metavar="DATA", help="folder of binarised text (data-bin)")
    parser.add_argument(
        "--path", required=True, action="append", nargs="+", metavar="CKPT",
        help="checkpoint of admin_transformer or of fairseq's transformer; several are put side "
        "by side (repeat --path or list them)",
    )  # fmt: skip
    parser.add_argument(
        "--label", action="append", nargs="+", metavar="NAME",
        help="name of each model in table and plots (default: its path)",
    )  # fmt: skip
    parser.add_argument(
        "--gen-subset", default="test", metavar="NAME", help="held-out text (default: test)"
    )
    parser.add_argument(
        "--num-tokens", type=int, default=8192,
        help="query tokens per kind of attention, from random sentences (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max-tokens", type=int, default=1024, help="tokens in a batch (default: %(default)s)"
    )
    add_language_arguments(parser, "default: as trained")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (default: %(default)s)")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the report")


def run(args: argparse.Namespace) -> None:
    """Watch every model, write the report, print the table."""
    paths = [path for group in args.path for path in group]
    labels = [label for group in args.label or [] for label in group] or paths
    if len(labels) != len(paths):
        raise UsageError(f"--label: {len(labels)} names for {len(paths)} models")
    if len(set(labels)) != len(labels):
        raise UsageError("--label: give every model a name of its own")
    require_folder(args.output)

    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.analysis.attention import watch_attention
    from admin_nmt.analysis.attention_report import table, write_report
    from admin_nmt.files import make_directory
    from admin_nmt.pruning.loading import load_model

    make_directory(args.output)
    models = {}
    for label, path in zip(labels, paths, strict=True):
        loaded = load_model(
            path, args.data, subset=args.gen_subset, source=args.source_lang,
            target=args.target_lang, cpu=args.cpu, purpose="have their attention analysed",
        )  # fmt: skip
        models[label] = watch_attention(
            loaded.model, loaded.task, args.gen_subset, args.num_tokens, args.max_tokens, args.seed
        )
    settings = {
        "data": args.data, "paths": paths, "gen_subset": args.gen_subset, "seed": args.seed,
        "num_tokens": args.num_tokens, "max_tokens": args.max_tokens,
    }  # fmt: skip
    write_report(models, args.output, settings)
    sys.stdout.write(table(models) + "\n")
    logging.getLogger(__name__).info("report in %s", args.output)
