"""Options for the language pair; without them the checkpoint or the names of files say which."""

import argparse


def add_language_arguments(
    parser: argparse.ArgumentParser, meaning: str = "default: as the checkpoint was trained"
) -> None:
    """`-s` and `-t`; `meaning` is what their help says."""
    parser.add_argument("-s", "--source-lang", metavar="LANG", help=meaning)
    parser.add_argument("-t", "--target-lang", metavar="LANG", help=meaning)
