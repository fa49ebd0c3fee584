"""`admin-nmt translate`: raw text from a file or standard input to a file or standard output."""

import argparse
import logging
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from admin_nmt.cli._streams import open_input, open_output
from admin_nmt.cli._translation import (
    add_alignment_arguments,
    add_engine_arguments,
    add_search_arguments,
    alignment_options,
    load_engine,
    search_options,
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


def _rows(number: int, found: Iterable[Any], nbest: int | None) -> str:
    """The output for one line of input."""
    if nbest is None:
        return next(iter(found)).text + "\n"
    return "".join(f"{number}\t{entry.score:.4f}\t{entry.text}\n" for entry in found)
