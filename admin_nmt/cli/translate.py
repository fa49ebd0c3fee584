"""`admin-nmt translate`: raw text from a file or standard input to a file or standard output."""

import argparse
import logging
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from admin_nmt.cli._streams import open_input, open_output
from admin_nmt.cli.export import (
    add_alignment_arguments,
    add_text_arguments,
    alignment_options,
    text_options,
)
from admin_nmt.errors import UsageError

HELP = "translate raw text with an exported folder or a checkpoint"

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the text, the search."""
    parser.add_argument(
        "model", metavar="DIR_OR_CKPT", help="folder made by 'admin-nmt export', or a checkpoint"
    )
    parser.add_argument("--input", metavar="FILE", help="one sentence a line (default: stdin)")
    parser.add_argument("--output", metavar="FILE", help="translations (default: stdout)")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    add_search_arguments(
        parser, "write the N best, each as: line number, tab, score, tab, translation"
    )
    parser.add_argument(
        "--alignments",
        metavar="FILE",
        help="also write which words were translated from which, a line per translation: 0-0 1-2 "
        "(source-target, words of the lines as they are, from 0)",
    )
    add_alignment_arguments(parser)
    add_engine_arguments(parser)


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


def run(args: argparse.Namespace) -> int:
    """Translate line after line."""
    from admin_nmt.export.lines import count_lines, read_lines
    from admin_nmt.outputs import require_files

    search = replace(search_options(args), alignment=_alignment(args))
    outputs = {"--output": args.output, "--alignments": args.alignments}
    require_files(outputs, [args.input], args.force)
    total = count_lines(Path(args.input)) if args.input else None

    translator = load_engine(args)
    from admin_nmt.data.word_alignment import pharaoh
    from admin_nmt.progress import progress

    with ExitStack() as stack:
        source = stack.enter_context(open_input(args.input))
        write = stack.enter_context(open_output(args.output))
        align = stack.enter_context(open_output(args.alignments)) if args.alignments else None
        # Somebody who types wants an answer after each line.
        chunk = {"chunk_lines": 1} if source.isatty() else {}
        bar = stack.enter_context(progress(logger, "translating", "lines", total=total))
        results = translator.stream(read_lines(source), search, done=bar.update, **chunk)
        for number, found in enumerate(results, start=1):
            write(_rows(number, found, args.nbest))
            if align is not None:
                align("".join(pharaoh(entry.alignment) + "\n" for entry in found))
    return 0


def _alignment(args: argparse.Namespace) -> Any:
    """The `Alignment` that was asked for, or None."""
    alignment = alignment_options(args)
    if args.alignments is not None:
        return alignment
    if args.alignment_layer is not None or args.alignment_heads is not None:
        raise UsageError("--alignment-layer and --alignment-heads need --alignments FILE")
    return None


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


def _rows(number: int, found: Iterable[Any], nbest: int | None) -> str:
    """The output for one line of input."""
    if nbest is None:
        return next(iter(found)).text + "\n"
    return "".join(f"{number}\t{entry.score:.4f}\t{entry.text}\n" for entry in found)
