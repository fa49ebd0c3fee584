"""Alignments of words from alignments of subwords.

A word is what white space separates in a line as the user sees it. Between such a line and the pieces
that a model reads or writes lie Moses tokenisation (`Hund.` is two tokens), escapes, normalisation, lower
case and the splitting into subwords; only the characters go through. So a token finds its words by its
characters: the two texts, without their spaces, are laid side by side from left to right.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from admin_nmt.data.subwords import Subwords

#: Characters within which two texts that differ are brought together again.
_WINDOW = 64

#: Indices of words, ascending.
Words = tuple[int, ...]
#: (index in the source, index in the target).
Link = tuple[int, int]


def tokens_of(pieces: Sequence[str], subwords: Subwords) -> tuple[list[str], list[int]]:
    """The tokens that pieces make up, and for every piece the index of its token.

    Examples:
        >>> from pathlib import Path
        >>> from admin_nmt.data.subwords import SubwordNmt
        >>> tokens_of(["lo@@", "w", "er"], SubwordNmt(Path("codes")))
        (['low', 'er'], [0, 0, 1])
    """
    groups: list[list[str]] = []
    places = []
    for index, piece in enumerate(pieces):
        if not index or subwords.ends_word(pieces[index - 1]) or subwords.begins_word(piece):
            groups.append([])
        groups[-1].append(piece)
        places.append(len(groups) - 1)
    return [subwords.merge(" ".join(group)) for group in groups], places


def words_of_tokens(tokens: Sequence[str], line: str) -> list[Words]:
    """For every token the words of `line` that it is made of, or is part of.

    Case and Unicode's compatibility forms (NFKC) make no difference. A token whose characters are not in
    the line belongs to the word in whose place it stands.

    Args:
        tokens: of the line, in order, without escapes.
        line: the text; its words are what white space separates (`str.split`).

    Examples:
        >>> words_of_tokens(["ein", "Hund", ".", '"'], "Ein Hund. “")
        [(0,), (1,), (1,), (2,)]
    """
    of_tokens, of_words = _characters(tokens), _characters(line.split())
    sure: list[set[int]] = [set() for _ in tokens]
    guessed: list[set[int]] = [set() for _ in tokens]
    texts = ["".join(character for character, _ in side) for side in (of_tokens, of_words)]
    for first, second, equal in _pairs(*texts):
        (sure if equal else guessed)[of_tokens[first][1]].add(of_words[second][1])
    return [tuple(sorted(a or b)) for a, b in zip(sure, guessed, strict=True)]


def word_links(
    attended: Sequence[int], source_words: Sequence[Words], target_words: Sequence[Words]
) -> list[Link]:
    """Words are linked where a piece of the one attends to a piece of the other; in ascending order.

    Args:
        attended: for every target piece the index of a source piece.
        source_words: for every source piece its words.
        target_words: for every target piece its words.

    Examples:
        >>> word_links([1, 1, 0], [(0,), (1,)], [(0,), (0,), (1,)])
        [(0, 1), (1, 0)]
    """
    return sorted(
        {
            (source, target)
            for piece, words in zip(attended, target_words, strict=True)
            for source in source_words[piece]
            for target in words
        }
    )


def pharaoh(links: Sequence[Link]) -> str:
    """Links as Pharaoh, fast_align and fairseq write them.

    Examples:
        >>> pharaoh([(0, 1), (1, 0)])
        '0-1 1-0'
    """
    return " ".join(f"{source}-{target}" for source, target in links)


def _characters(parts: Sequence[str]) -> list[tuple[str, int]]:
    """The characters of the parts in their common form, each with the index of its part."""
    return [
        (character, index)
        for index, part in enumerate(parts)
        for character in unicodedata.normalize("NFKC", part).casefold()
        if not character.isspace()
    ]


def _pairs(first: str, second: str) -> Iterator[tuple[int, int, bool]]:
    """For every character of `first` its place in `second`, and whether the same character is there."""
    i = j = 0
    while i < len(first) and j < len(second):
        if first[i] == second[j]:
            yield i, j, True
            i, j = i + 1, j + 1
            continue
        a, b = _next_match(first[i : i + _WINDOW], second[j : j + _WINDOW])
        for k in range(a):
            yield i + k, min(j + k * b // a, len(second) - 1), False
        i, j = i + a, j + b
    if second:
        yield from ((k, len(second) - 1, False) for k in range(i, len(first)))


def _next_match(first: str, second: str) -> tuple[int, int]:
    """Where two texts that begin differently are the same again: at two characters, or at their end."""
    blocks = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return next((a, b) for a, b, size in blocks if size > 1 or a + size == len(first))
