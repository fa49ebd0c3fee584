"""`admin-nmt score`: argument parsing of `evaluation.scoring`."""

import argparse
import dataclasses
import json
import sys

HELP = "sacreBLEU, chrF and TER of a detokenised translation, with signatures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two files and how to compare them."""
    parser.add_argument(
        "hypotheses", metavar="HYP", help="translation, a sentence a line; - is standard input"
    )
    parser.add_argument("references", metavar="REF", help="reference; both may be gzip files")
    parser.add_argument("--lowercase", action="store_true", help="ignore case")
    parser.add_argument(
        "--tokenize", metavar="NAME", help="sacreBLEU's tokeniser for BLEU (default: 13a)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Read, score, print."""
    from admin_nmt.evaluation.scoring import detokenized_scores, score_table
    from admin_nmt.evaluation.text import read_lines, require_equal_counts

    hypotheses = read_lines(args.hypotheses)
    references = read_lines(args.references)
    require_equal_counts(args.hypotheses, hypotheses, args.references, references)
    scores = detokenized_scores(
        hypotheses, references, lowercase=args.lowercase, tokenize=args.tokenize
    )
    if args.json:
        result = {
            "hypotheses": args.hypotheses,
            "references": args.references,
            "num_sentences": len(hypotheses),
            "scores": [dataclasses.asdict(score) for score in scores],
        }
        sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(score_table(scores) + "\n")
    return 0
