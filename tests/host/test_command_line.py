"""The help of our architectures, and the line where no criterion was chosen."""

import argparse
import logging
from collections.abc import Callable
from typing import Any

import pytest

from admin_nmt.host.command_line import NO_CRITERION, move_to_group

RDROP = ("--criterion", "label_smoothed_cross_entropy_rdrop")


def help_of(parse: Callable[..., Any], capsys: Any, *options: str) -> str:
    with pytest.raises(SystemExit) as left:
        parse(*options, "--help")
    assert left.value.code == 0
    return capsys.readouterr().out


def group(text: str, title: str) -> str:
    """What stands under a title: the help ends a group with an empty line."""
    return text.partition(f"\n{title}")[2].partition("\n\n")[0]


def test_our_options_are_shown_under_titles(parse: Callable[..., Any], capsys: Any) -> None:
    shown = help_of(parse, capsys, *RDROP)
    ours = group(shown, "--arch admin_transformer_tiny")
    for option in ("--init-type", "--residual-attention", "--head-mask", "--cuda-graphs"):
        assert f"\n  {option} " in ours
    assert "--encoder-layers" not in ours
    assert "--encoder-layers" in shown
    assert "--bpe-dropout" in group(shown, "--task translation")
    rdrop = group(shown, "--criterion label_smoothed_cross_entropy_rdrop")
    assert "--rdrop-alpha" in rdrop
    assert "--adam-betas" in group(shown, "--optimizer radam")
    # fairseq's own group keeps what the criterion and the scheduler only read.
    assert "--sentence-avg" in group(shown, "optimization:")
    # Every option is listed once.
    for option in ("--rdrop-alpha", "--init-type", "--sentence-avg"):
        assert shown.count(f"\n  {option} ") == 1


def test_the_help_of_other_models_is_fairseqs(parse: Callable[..., Any], capsys: Any) -> None:
    shown = help_of(parse, capsys, "--arch", "transformer")
    assert "--arch transformer:" not in shown
    assert "--max-tokens" in shown


def test_moving_leaves_parsing_alone() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, help="how many")
    move_to_group(parser, "Sizes", ["size", "absent"])
    move_to_group(parser, "Nothing", ["absent"])
    assert parser.parse_args(["--size", "3"]).size == 3
    assert "Sizes:\n  --size SIZE" in parser.format_help()
    assert "Nothing" not in parser.format_help()


@pytest.mark.parametrize(
    ("options", "rank", "told"),
    [
        ((), "0", True),
        ((), "1", False),
        (RDROP, "0", False),
        (("--criterion=cross_entropy",), "0", False),
        (("--arch", "transformer"), "0", False),
    ],
    ids=["none", "second rank", "ours", "chosen", "other model"],
)
def test_a_criterion_is_suggested_once(
    parse: Callable[..., Any],
    caplog: Any,
    monkeypatch: Any,
    options: tuple[str, ...],
    rank: str,
    told: bool,
) -> None:
    monkeypatch.setenv("RANK", rank)
    with caplog.at_level(logging.INFO):
        parse(*options)
    assert caplog.messages.count(NO_CRITERION) == told


def test_what_is_suggested_is_accepted(parse: Callable[..., Any]) -> None:
    words = NO_CRITERION.partition("train with ")[2].partition(",")[0].split()
    assert parse(*words).criterion._name == words[1]
