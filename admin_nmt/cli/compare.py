"""`admin-nmt compare`: argument parsing of `evaluation.significance`."""

import argparse
import dataclasses
import sys

from admin_nmt.errors import UsageError
from admin_nmt.outputs import require_files

HELP = "is one translation significantly better than another? (paired tests of sacreBLEU)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Systems, reference, and the settings of the two tests."""
    parser.add_argument(
        "systems",
        nargs="+",
        metavar="HYP",
        help="detokenised translations of one test set; the first is the baseline",
    )
    parser.add_argument(
        "--reference",
        required=True,
        action="append",
        metavar="REF",
        help="their reference; again for each further one",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=("bleu", "chrf", "chrf++", "ter"),
        default=["bleu", "chrf", "ter"],
        help="what to compare (default: bleu chrf ter)",
    )
    parser.add_argument("--lowercase", action="store_true", help="ignore case")
    parser.add_argument(
        "--tokenize", metavar="NAME", help="sacreBLEU's tokeniser for BLEU (default: 13a)"
    )
    parser.add_argument(
        "--paired-bs-n",
        type=int,
        default=1000,
        metavar="N",
        help="resamples of the paired bootstrap (default: %(default)s)",
    )
    parser.add_argument(
        "--paired-ar-n",
        type=int,
        default=10000,
        metavar="N",
        help="trials of approximate randomisation (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=12345, help="of both tests (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results to this file as well")


def run(args: argparse.Namespace) -> int:
    """Read, test, print."""
    if len(args.systems) < 2:
        raise UsageError("give at least two translations to compare, the baseline first")
    repeated = [name for name in args.systems if args.systems.count(name) > 1]
    if repeated:
        raise UsageError(f"{repeated[0]} is given more than once")
    require_files({"--json": args.json}, [*args.systems, *args.reference])

    from admin_nmt.evaluation.significance import compare_systems, comparison_table
    from admin_nmt.evaluation.text import read_lines, read_parallel, require_equal_counts
    from admin_nmt.json_files import write_json

    references, *more_references = read_parallel(args.reference)
    systems = {name: read_lines(name) for name in args.systems}
    for name, hypotheses in systems.items():
        require_equal_counts(name, hypotheses, args.reference[0], references)
    comparison = compare_systems(
        systems,
        references,
        more_references=more_references,
        metrics=list(dict.fromkeys(args.metrics)),
        lowercase=args.lowercase,
        tokenize=args.tokenize,
        num_bootstrap=args.paired_bs_n,
        num_randomisation=args.paired_ar_n,
        seed=args.seed,
    )
    sys.stdout.write(comparison_table(comparison) + "\n")
    if args.json:
        result = {
            "reference": args.reference[0],
            "more_references": args.reference[1:],
            "baseline": args.systems[0],
            "num_sentences": len(references),
            "seed": args.seed,
            **dataclasses.asdict(comparison),
        }
        write_json(args.json, result)
    return 0
