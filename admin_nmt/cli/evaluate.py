"""`admin-nmt evaluate`: argument parsing of `evaluation.evaluate`."""

import argparse
import sys

from admin_nmt.cli._languages import add_language_arguments
from admin_nmt.outputs import require_folder

HELP = "translate a subset with a trained model; sacreBLEU, chrF, TER, COMET, tokenised BLEUs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Names follow `fairseq-generate`."""
    parser.add_argument("data", metavar="DATA", help="folder of binarised text (data-bin)")
    parser.add_argument(
        "--path",
        required=True,
        metavar="CKPT",
        help="checkpoint; several joined by : translate together",
    )
    parser.add_argument(
        "--gen-subset", default="test", metavar="NAME", help="what to translate (default: test)"
    )
    parser.add_argument(
        "--reference",
        action="append",
        metavar="RAW",
        help="untouched reference, a sentence a line; again for each further one (default: the one "
        "in DATA/preparation.json, else the binarised one, detokenised)",
    )
    add_language_arguments(parser)
    parser.add_argument("--beam", type=int, default=5, help="beam size (default: %(default)s)")
    parser.add_argument(
        "--lenpen", type=float, default=1.0, help="length penalty (default: %(default)s)"
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=12000,
        help="tokens in a batch; a longer sentence is one of its own (default: %(default)s)",
    )
    parser.add_argument(
        "--tokenize",
        metavar="NAME",
        help="sacreBLEU's tokeniser for BLEU (default: its own for the target language, zh for Chinese, "
        "13a for most)",
    )
    parser.add_argument(
        "--comet",
        metavar="DIR",
        help="COMET as well, with the model in this folder (downloads nothing)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="folder for translations and scores (default: beside the checkpoint, such as "
        "RUN/checkpoint_best.test.de-en)",
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--fp16", action="store_true", help="compute in 16 bits (GPU)")


def run(args: argparse.Namespace) -> int:
    """Translate, score, print."""
    require_folder(args.output)

    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.evaluation.decoding import SearchOptions
    from admin_nmt.evaluation.evaluate import evaluate, evaluation_report

    options = SearchOptions(
        beam=args.beam,
        lenpen=args.lenpen,
        max_tokens=args.max_tokens,
        cpu=args.cpu,
        fp16=args.fp16,
    )
    first, *others = args.reference or [None]
    result = evaluate(
        args.data,
        args.path,
        subset=args.gen_subset,
        source=args.source_lang,
        target=args.target_lang,
        reference=first,
        more_references=others,
        output=args.output,
        options=options,
        comet=args.comet,
        tokenize=args.tokenize,
    )
    sys.stdout.write(evaluation_report(result) + "\n")
    return 0
