"""What the commands that translate raw text or whole data sets share: options for the search, for
alignments, for where a model runs and for how its text was prepared."""

import argparse
from typing import Any

from admin_nmt.errors import UsageError


def add_search_arguments(parser: argparse.ArgumentParser, nbest: str) -> None:
    """How to search; `nbest` is the help of `--nbest`."""
    parser.add_argument("--beam", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument(
        "--nbest",
        type=int,
        metavar="N",
        help=nbest,
    )
    parser.add_argument("--lenpen", type=float, default=1.0, metavar="P", help="default 1")
    parser.add_argument(
        "--sampling",
        action="store_true",
        help="draw --nbest translations at random, without a beam",
    )
    for option, kind, metavar, meaning in (
        ("--sampling-topk", int, "K", "draw from the K most probable subwords"),
        (
            "--sampling-topp",
            float,
            "P",
            "draw from the most probable subwords with total probability P",
        ),
        ("--temperature", float, "T", "divide logits by T before drawing (default 1)"),
        ("--seed", int, "N", "of the random numbers (default 1)"),
    ):
        parser.add_argument(option, type=kind, metavar=metavar, help=meaning)


def search_options(args: argparse.Namespace) -> Any:
    """The `Search` that `add_search_arguments` read.

    Raises:
        UsageError: a value out of range, or options of sampling without it.
    """
    from admin_nmt.export.search import Search

    nbest = 1 if args.nbest is None else args.nbest
    return Search(args.beam, nbest, args.lenpen, _sampling(args))


def _sampling(args: argparse.Namespace) -> Any:
    """The `Sampling` that was asked for, or None."""
    from admin_nmt.export.search import Sampling

    given = {
        "topk": args.sampling_topk,
        "topp": args.sampling_topp,
        "temperature": args.temperature,
        "seed": args.seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if given and not args.sampling:
        raise UsageError(
            "--sampling-topk, --sampling-topp, --temperature and --seed need --sampling"
        )
    return Sampling(**given) if args.sampling else None


def add_alignment_arguments(parser: argparse.ArgumentParser) -> None:
    """Which attention gives alignments."""
    parser.add_argument(
        "--alignment-layer",
        type=int,
        metavar="N",
        help="decoder layer whose attention gives alignments, from 0 (default: the one trained for it, "
        "else the last)",
    )
    parser.add_argument(
        "--alignment-heads",
        type=int,
        metavar="N",
        help="the average of its first N heads (default: those trained for it, else all)",
    )


def alignment_options(args: argparse.Namespace) -> Any:
    """The `Alignment` of the arguments above."""
    from admin_nmt.export.search import Alignment

    return Alignment(args.alignment_layer, args.alignment_heads)


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a model runs and, for a checkpoint, what it does not say itself."""
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="for a checkpoint: the data folder it was trained on (default: where that was)",
    )
    add_text_arguments(parser)


def load_engine(args: argparse.Namespace) -> Any:
    """The `Translator` of `args.model` and what `add_engine_arguments` read."""
    from admin_nmt.export.loading import load_translator

    return load_translator(
        args.model,
        data=args.data,
        threads=args.threads,
        device=args.device,
        options=text_options(args),
    )


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    """What a data folder without `preparation.json` does not say itself."""
    group = parser.add_argument_group(
        "how the training text was prepared",
        "only for a DATA folder that 'admin-nmt prepare' did not make",
    )
    group.add_argument("--bpe-codes", metavar="FILE", help="BPE codes of subword-nmt")
    group.add_argument(
        "--sentencepiece-model", metavar="FILE", help="or a model of SentencePiece over raw text"
    )
    group.add_argument("--source-lang", "-s", metavar="LANG", help="source language")
    group.add_argument("--target-lang", "-t", metavar="LANG", help="target language")
    group.add_argument(
        "--normalize",
        action="store_true",
        help="normalise punctuation and non-printing characters, as Moses' scripts do",
    )
    group.add_argument(
        "--aggressive-hyphens", action="store_true", help="split a-b into a @-@ b (Moses' -a)"
    )
    group.add_argument("--lowercase", action="store_true", help="the model reads lower case only")
    group.add_argument(
        "--tokenizer-lang",
        action="append",
        default=[],
        metavar="LANG=LANG",
        help="the first language was tokenised by the rules of the second",
    )


def text_options(args: argparse.Namespace) -> Any:
    """The `TextOptions` of the arguments above."""
    from admin_nmt.export.text import TextOptions

    names = (
        "bpe_codes",
        "source_lang",
        "target_lang",
        "normalize",
        "aggressive_hyphens",
        "lowercase",
        "sentencepiece_model",
    )
    given = {name: getattr(args, name) for name in names}
    return TextOptions(**given, tokenizer_lang=tuple(args.tokenizer_lang))
