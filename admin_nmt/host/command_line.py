"""fairseq's command line with one of our architectures: its help, and the criterion nobody chose."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import wraps
from typing import Any

from admin_nmt.host.ours import is_our_architecture
from admin_nmt.host.patch import Patch, Scope
from admin_nmt.host.subword_sampling import OPTIONS

logger = logging.getLogger(__name__)

#: What is logged where the command line names no criterion.
NO_CRITERION = (
    "no --criterion: fairseq takes cross_entropy, without label smoothing. The recipes train with "
    "--criterion admin_label_smoothed_cross_entropy --label-smoothing 0.1, which is also faster"
)
_HELP = ("-h", "--help")
#: What a command line chooses that brings options of its own.
_CHOICES = ("criterion", "optimizer", "lr_scheduler")
#: Title of fairseq's group in which `--lr` and `--sentence-avg` are looked for.
_KEPT = ("optimization",)


def words_given(input_args: Sequence[str] | None) -> list[str]:
    """The words that `fairseq.options.parse_args_and_arch` parses: the program's where it is given none."""
    return list(sys.argv[1:] if input_args is None else input_args)


def move_to_group(parser: argparse.ArgumentParser, title: str, dests: Iterable[str]) -> None:
    """Options of a parser are shown under a title of their own, at the end of the help.

    Args:
        parser: changed; how it parses is not.
        title: of the new group.
        dests: names of the options' values. Those that the parser does not have, or has in a group
            of `_KEPT` already, are left out.
    """
    wanted = set(dests)
    moved = []
    for group in parser._action_groups:
        if group.title in _KEPT:
            continue
        moved += [action for action in group._group_actions if action.dest in wanted]
        group._group_actions = [
            action for action in group._group_actions if action.dest not in wanted
        ]
    if moved:
        parser.add_argument_group(title)._group_actions.extend(moved)


def _by_owner(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Options of the criterion, the optimizer and so on, and ours of the model, each under a title."""
    from fairseq.registry import REGISTRIES

    from admin_nmt.models.config import our_options

    for name in _CHOICES:
        choice = getattr(args, name, None)
        options = getattr(REGISTRIES[name]["registry"].get(choice), "__dataclass", None)
        if options is not None:
            move_to_group(
                parser,
                f"--{name.replace('_', '-')} {choice}",
                (option.name for option in fields(options)),
            )
    move_to_group(
        parser,
        "--task translation: words split anew in every batch (admin_nmt)",
        OPTIONS,
    )
    move_to_group(
        parser,
        f"--arch {args.arch}: ADMIN, RealFormer, pruned heads, speed (admin_nmt)",
        (option.name for option in our_options()),
    )


def _with_the_models_options(parse: Callable) -> Callable:
    """`fairseq-train --arch admin_transformer --help` shows the options of the model, criterion and
    optimizer named beside it, grouped: fairseq prints its help before it has added them."""

    @wraps(parse)
    def wrapped(
        parser: argparse.ArgumentParser,
        input_args: Sequence[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        words = words_given(input_args)
        if not set(_HELP) & set(words):
            return parse(parser, input_args, *args, **kwargs)
        parse_known, format_help = parser.parse_known_args, parser.format_help

        def first(*_: Any) -> Any:
            """The pass in which fairseq learns what is chosen; it then adds the options of that."""
            parser.parse_known_args = parse_known  # type: ignore[method-assign]
            known = parse_known([word for word in words if word not in _HELP])
            if not is_our_architecture(getattr(known[0], "arch", None)):
                return parse_known(words)

            def grouped() -> str:
                _by_owner(parser, known[0])
                return format_help()

            parser.format_help = grouped  # type: ignore[method-assign]
            return known

        parser.parse_known_args = first  # type: ignore[method-assign, assignment]
        return parse(parser, input_args, *args, **kwargs)

    return wrapped


def _suggesting_a_criterion(parse: Callable) -> Callable:
    """A training of our models without `--criterion` gets one line that names ours: fairseq's default
    has no label smoothing, which every published result uses."""

    @wraps(parse)
    def wrapped(
        parser: argparse.ArgumentParser,
        input_args: Sequence[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        parsed = parse(parser, input_args, *args, **kwargs)
        words = words_given(input_args)
        named = any(word.partition("=")[0] == "--criterion" for word in words)
        found = parsed[0] if isinstance(parsed, tuple) else parsed
        # Under a launcher every rank reads the same command line.
        if (
            not named
            and is_our_architecture(getattr(found, "arch", None))
            and os.environ.get("RANK", "0") == "0"
        ):
            logger.info(NO_CRITERION)
        return parsed

    return wrapped


PATCHES = (
    Patch("fairseq.options", "parse_args_and_arch", _with_the_models_options, Scope.OURS),
    Patch("fairseq.options", "parse_args_and_arch", _suggesting_a_criterion, Scope.OURS),
)
