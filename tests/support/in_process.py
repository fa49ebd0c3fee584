"""Programs of fairseq in this process: importing takes longer than most of what tests ask of them."""

import importlib
import sys
from unittest import mock


def run_fairseq(program: str, *words: object) -> None:
    """What `fairseq-train WORDS`, `fairseq-generate WORDS` and so on do; ends as the program does,
    so refusals are `SystemExit`."""
    module = importlib.import_module(f"fairseq_cli.{program.removeprefix('fairseq-')}")
    with mock.patch.object(sys, "argv", [program, *map(str, words)]):
        module.cli_main()
