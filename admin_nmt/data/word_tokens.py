"""Moses tokens of lines, from a table of words: the bytes of sacremoses, many times as fast.

sacremoses applies some fifteen regular expressions to a line. None of them looks further than one
character to either side, but for a period at the end of a word, which stays there or not by the
first character of the next word. So tokens of a line are the tokens of its words, each worked out
once, by sacremoses, with two exceptions:

- a word that ends in a period is worked out before a small letter, a digit, anything else, and at
  the end of the line;
- a line goes to sacremoses as a whole if one of its words begins or ends with an apostrophe (its
  rules take the space beside it away from the neighbour), begins with a comma (`,5` is split
  after a word but not at the beginning of a line), or has a control character (which disappears).

A comma at the end of a word is split in any place, and a comma or an apostrophe that stands alone
is a token in any place.
"""

import re
from collections.abc import Callable, Collection

from admin_nmt.data.memory import Memory

#: Characters that sacremoses takes out.
CONTROL = re.compile(r"[\x00-\x1f]")
#: What sacremoses writes for dots meanwhile; a word with it comes out changed.
_MARKER = "MULTI"
_DIGITS = frozenset("0123456789")


class _WholeLineError(Exception):
    """A word whose tokens depend on more than what the table knows."""


class WordTokens:
    """Tokens of a line, joined by spaces.

    Args:
        tokenize: tokens of any text, joined by single spaces, by the rules above.
        letters: characters that `tokenize` leaves alone wherever they stand (letters and digits).
        small: the letters before which a period may stay with its word.
    """

    def __init__(
        self, tokenize: Callable[[str], str], letters: Collection[str], small: Collection[str]
    ) -> None:
        self._tokenize = tokenize
        self._letters, self._small = frozenset(letters), frozenset(small)
        self._words = Memory(self._word)
        self._periods = Memory(self._before)
        self._last = Memory(self._checked)

    def __call__(self, line: str) -> str:
        """The same as `tokenize(line)`."""
        words = line.split()
        if not words:
            return ""
        last = words.pop()
        try:
            if ". " in line:
                tokens = [
                    self._periods[f"{word} {self._kind(after)}"]
                    if word[-1] == "."
                    else self._words[word]
                    for word, after in zip(
                        words, [*words[1:], last], strict=False
                    )  # words may be none
                ]
            else:
                tokens = [*map(self._words.__getitem__, words)]
            tokens.append((self._last if last[-1] == "." else self._words)[last])
        except _WholeLineError:
            return self._tokenize(line)
        return " ".join(tokens)

    def _kind(self, word: str) -> str:
        """A word that acts on a period before it as `word` does."""
        if word[0] in self._small:
            return "a"
        return "0" if word[0] in _DIGITS else "A"

    def _word(self, word: str) -> str:
        if self._letters.issuperset(word) and _MARKER not in word:
            return word
        if word[-1] == ".":
            raise _WholeLineError  # before white space of another kind than a space
        return self._checked(word)

    def _before(self, key: str) -> str:
        """Tokens of the first of two words."""
        word, _, after = key.partition(" ")
        return self._checked(word, " " + after).removesuffix(" " + after)

    def _checked(self, word: str, after: str = "") -> str:
        at_edge = word[0] in ",'" or word[-1] == "'"
        if (at_edge and len(word) > 1) or CONTROL.search(word):
            raise _WholeLineError
        return self._tokenize(word + after)
