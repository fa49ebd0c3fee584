"""The options that name a language pair, where a checkpoint or the names of files say which else."""

import argparse


def add_language_arguments(
    parser: argparse.ArgumentParser, meaning: str = "default: as the checkpoint was trained"
) -> None:
    """`-s` and `-t`; `meaning` is what their help says."""
    parser.add_argument("-s", "--source-lang", metavar="LANG", help=meaning)
    parser.add_argument("-t", "--target-lang", metavar="LANG", help=meaning)
