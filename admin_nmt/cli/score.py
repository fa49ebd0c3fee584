"""`admin-nmt score`: argument parsing of `evaluation.scoring`."""

import argparse
import dataclasses
import json
import sys

from admin_nmt.errors import UsageError

HELP = "sacreBLEU, chrF, chrF++, TER and COMET of a detokenised translation, with signatures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files and how to compare them."""
    parser.add_argument(
        "hypotheses", metavar="HYP", help="translation, a sentence a line; - is standard input"
    )
    parser.add_argument(
        "references", nargs="+", metavar="REF", help="references; all files may be gzip files"
    )
    parser.add_argument("--lowercase", action="store_true", help="ignore case")
    parser.add_argument(
        "--tokenize", metavar="NAME", help="sacreBLEU's tokeniser for BLEU (default: 13a)"
    )
    parser.add_argument(
        "--comet",
        metavar="DIR",
        help="COMET as well, with the model in this folder (needs --sources; downloads nothing)",
    )
    parser.add_argument("--sources", metavar="SRC", help="the sentences that were translated")
    parser.add_argument("--cpu", action="store_true", help="no GPU for COMET")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Read, score, print."""
    from admin_nmt.evaluation.comet import comet_score, require_comet
    from admin_nmt.evaluation.scoring import detokenized_scores, score_table
    from admin_nmt.evaluation.text import read_lines, read_parallel, require_equal_counts

    if (args.comet is None) != (args.sources is None):
        raise UsageError("--comet DIR and --sources SRC need each other")
    hypotheses = read_lines(args.hypotheses)
    references = read_parallel(args.references)
    require_equal_counts(args.hypotheses, hypotheses, args.references[0], references[0])
    if args.comet is not None:
        require_comet(args.comet)
        sources = read_lines(args.sources)
        require_equal_counts(args.hypotheses, hypotheses, args.sources, sources)
    scores = detokenized_scores(
        hypotheses,
        references[0],
        more_references=references[1:],
        lowercase=args.lowercase,
        tokenize=args.tokenize,
    )
    if args.comet is not None:
        scores.append(comet_score(args.comet, sources, hypotheses, references, cpu=args.cpu))
    if args.json:
        result = {
            "hypotheses": args.hypotheses,
            "references": args.references[0],
            "more_references": args.references[1:],
            "num_sentences": len(hypotheses),
            "scores": [dataclasses.asdict(score) for score in scores],
        }
        sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(score_table(scores) + "\n")
    return 0
