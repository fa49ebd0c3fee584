"""`admin-nmt ablate`: argument parsing of `pruning.ablation`."""

import argparse
import logging
import sys
from pathlib import Path

from admin_nmt.cli._heads import (
    add_evaluation_arguments,
    add_model_arguments,
    evaluation_options,
    load,
)
from admin_nmt.errors import UsageError

HELP = "BLEU without each attention head, and with each alone in its layer, with significance"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, test set, experiments, tests."""
    add_model_arguments(parser)
    add_evaluation_arguments(parser)
    parser.add_argument(
        "--experiments",
        nargs="+",
        choices=("one-head", "all-but-one"),
        default=["one-head", "all-but-one"],
        help="remove one head at a time, or all of a layer but one (default: both)",
    )
    parser.add_argument(
        "--kinds",
        default="EAD",
        metavar="LETTERS",
        help="heads of these kinds: E encoder self-, A encoder-decoder, D decoder self-attention "
        "(default: EAD)",
    )
    parser.add_argument(
        "--paired-bs-n", type=int, default=1000, metavar="N",
        help="resamples of the paired bootstrap (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--paired-ar-n", type=int, default=1000, metavar="N",
        help="trials of approximate randomisation (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=12345, help="of both tests (default: %(default)s)"
    )
    parser.add_argument(
        "--compare",
        metavar="FILE",
        help="ablation.json of the same model on another test set: correlation of the differences",
    )


def run(args: argparse.Namespace) -> None:
    """Translate, test, write ablation.json and ablation.png, print."""
    options = evaluation_options(args)
    if not args.kinds or set(args.kinds) - set("EAD"):
        raise UsageError(f"--kinds {args.kinds}: give some of the letters E, A and D")

    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.analysis.plots import plot_head_maps
    from admin_nmt.pruning.ablation import (
        ablate,
        difference_maps,
        load_ablation,
        require_same_model,
        save_ablation,
    )
    from admin_nmt.pruning.masked_translation import MaskedTranslator, TestSet
    from admin_nmt.pruning.reports import ablation_table, comparison

    logging.getLogger("sacrebleu").setLevel(logging.WARNING)  # two lines a test
    theirs, other = load_ablation(args.compare) if args.compare else ({}, None)
    loaded = load(args, args.path, args.gen_subset)
    if args.compare:
        require_same_model(theirs, loaded.fingerprint, args.compare)
    target = loaded.task.cfg.target_lang
    test_set = TestSet(
        args.data, args.gen_subset, target, options, args.output, args.reference,
        args.max_sentences,
    )  # fmt: skip
    translator = MaskedTranslator(loaded, test_set)
    bleu, rows = ablate(
        translator,
        args.experiments,
        args.kinds,
        num_bootstrap=args.paired_bs_n,
        num_randomisation=args.paired_ar_n,
        seed=args.seed,
    )
    described = {
        "checkpoint": args.path,
        "fingerprint": loaded.fingerprint,
        "data": args.data,
        "subset": args.gen_subset,
        "num_sentences": translator.num_sentences,
        "signature": test_set.signature,
    }
    save_ablation(bleu, rows, described, Path(args.output) / "ablation.json")
    sys.stdout.write(ablation_table(bleu, rows) + "\n")
    plot_head_maps(
        difference_maps(rows, loaded.layout),
        Path(args.output) / "ablation.png",
        label="BLEU difference",
        diverging=True,
    )
    if other is not None:
        sys.stdout.write(comparison(rows, other, args.compare) + "\n")
