"""Cleaning of parallel text, as defined by Moses' `clean-corpus-n.perl`.

One thing of that script is left out: it deletes `|` where the first line has none. After Moses
tokenisation there is no `|`, because the tokenizer writes it as `&#124;`.
"""

import re

from admin_nmt.data.corpora import Cleaning

#: What `\s` means in Perl. Python's also has U+001C to U+001F, which are no white space there.
_SPACES = re.compile(r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
#: Longest word in characters; a longer one crashes a program of Moses, so the script drops its line.
MAX_WORD_LENGTH = 1000


def squeeze(line: str) -> str:
    """Runs of white space become one space, at both ends none."""
    return _SPACES.sub(" ", line).removeprefix(" ").removesuffix(" ")


def clean_pair(source: str, target: str, cleaning: Cleaning) -> tuple[str, str] | None:
    """The pair with its white space squeezed, or None if it is to go.

    A pair goes if one side is empty, has fewer than `min_length` or more than `max_length` words,
    has over `ratio` times as many words as the other, or has a word of over 1,000 characters.
    """
    pair = squeeze(source), squeeze(target)
    if not all(pair):
        return None
    words = [line.split(" ") for line in pair]
    short, long = sorted(len(side) for side in words)
    if short < cleaning.min_length or long > cleaning.max_length or long / short > cleaning.ratio:
        return None
    # Moses also sees | as the end of a factor.
    for side in words:
        if any(len(part) > MAX_WORD_LENGTH for word in side for part in word.split("|")):
            return None
    return pair
