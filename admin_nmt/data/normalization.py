"""Moses' `normalize-punctuation.perl` and `remove-non-printing-char.perl`, by way of sacremoses.

sacremoses tries some fifty regular expressions on every line. Most lines have none of the characters
that they are about, and are left alone here without trying.
"""

import re
from functools import cache
from typing import Any

#: In each text that a rule of sacremoses changes there is one of these. A single space stands in a
#: rule that replaces runs of spaces: one is replaced by itself.
_TOUCHED = re.compile("[\r()%`´„“”–—‘‚’…«»\xa0\"]|  | [:;]|''")


@cache
def _normalizer(language: str) -> Any:
    from sacremoses import MosesPunctNormalizer

    # perl_parity: where the port and the Perl script of the published recipes differ, the script.
    return MosesPunctNormalizer(lang=language, perl_parity=True)


@cache
def _non_printing() -> Any:
    import regex  # a requirement of sacremoses; the standard library has no \p{C}

    return regex.compile(r"\p{C}")


def normalize(line: str, language: str) -> str:
    """`line` with punctuation in one form, and spaces for characters that do not print.

    Args:
        language: its rules for quotation marks and numbers; any code will do.
    """
    line = _normalizer(language).normalize(line) if _TOUCHED.search(line) else line.strip()
    # What Python can print is neither a control, format nor private character, nor unassigned.
    return line if line.isprintable() else _non_printing().sub(" ", line)
