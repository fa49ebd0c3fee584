"""Cleaning of parallel text, as defined by Moses' `clean-corpus-n.perl`.

One thing of that script is left out: it deletes `|` where the first line has none. After Moses
tokenisation there is no `|`, because the tokenizer writes it as `&#124;`.
"""

import re

from admin_nmt.data.corpora import Cleaning

#: What `\s` means in Perl. Python's also has U+001C to U+001F, which are not white space there.
_SPACES = re.compile(r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
#: Longest word in characters; a longer one crashes a program of Moses, so the script drops its line.
MAX_WORD_LENGTH = 1000


def squeeze(line: str) -> str:
    """Runs of white space become one space, at both ends none."""
    # Of white space Python can print single spaces alone; most lines are in order and spared the regex.
    if line.isprintable() and "  " not in line and line[:1] != " " and line[-1:] != " ":
        return line
    return _SPACES.sub(" ", line).removeprefix(" ").removesuffix(" ")


def clean_pair(source: str, target: str, cleaning: Cleaning) -> tuple[str, str] | None:
    """The pair with its white space squeezed, or None if it is to go.

    A pair goes if one side is empty, has fewer than `min_length` or more than `max_length` words,
    has over `ratio` times as many words as the other, or has a word of over 1,000 characters.
    """
    source, target = squeeze(source), squeeze(target)
    if not source or not target:
        return None
    short, long = source.count(" ") + 1, target.count(" ") + 1
    if short > long:
        short, long = long, short
    if short < cleaning.min_length or long > cleaning.max_length or long / short > cleaning.ratio:
        return None
    for line in (source, target):
        if len(line) > MAX_WORD_LENGTH and _has_long_word(line):
            return None
    return source, target


def _has_long_word(line: str) -> bool:
    # Moses also sees | as the end of a factor.
    return any(len(part) > MAX_WORD_LENGTH for part in re.split(r"[ |]", line))
