"""Raw text to Moses tokens and back, with sacremoses; or to raw text in a tidy form."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from admin_nmt.data.normalization import normalize
from admin_nmt.data.word_tokens import WordTokens
from admin_nmt.errors import UsageError, UserError


@cache
def _tokenizer(language: str) -> Any:
    from sacremoses import MosesTokenizer

    return MosesTokenizer(lang=language)


@cache
def _detokenizer(language: str) -> Any:
    from sacremoses import MosesDetokenizer

    return MosesDetokenizer(lang=language)


@cache
def _word_tokens(language: str, aggressive_hyphens: bool) -> WordTokens:
    tokenizer = _tokenizer(language)
    tokenize = partial(
        tokenizer.tokenize, aggressive_dash_splits=aggressive_hyphens, return_str=True
    )
    return WordTokens(tokenize, tokenizer.IsAlnum, tokenizer.IsLower)


def known_languages() -> list[str]:
    """The codes for which the Moses tokenizer has rules (abbreviations)."""
    from sacremoses.corpus import NonbreakingPrefixes

    return sorted(set(NonbreakingPrefixes().available_langs.values()))


def require_known_language(language: str) -> None:
    """Refuse codes that sacremoses would silently treat as English.

    Raises:
        UserError: with the known codes and the way around.
    """
    known = known_languages()
    if language not in known:
        raise UserError(
            f"the Moses tokenizer knows no language {language!r} (it knows {', '.join(known)}); "
            f"to tokenise it by the rules of another, give --tokenizer-lang {language}=en"
        )


def tokenizer_languages(
    languages: tuple[str, str], items: Sequence[str], rules: tuple[str, str] | None = None
) -> tuple[str, str]:
    """Codes whose rules tokenise two languages.

    Args:
        languages: source and target.
        items: of `--tokenizer-lang`: `LANG=LANG` tokenises the first by the rules of the second.
        rules: of the languages that no item names; None for their own.

    Raises:
        UsageError: an item of another form, or of another language.
    """
    found = dict(zip(languages, rules or languages, strict=True))
    for item in items:
        language, _, other = item.partition("=")
        if language not in found or not other:
            raise UsageError(
                f"--tokenizer-lang {item}: write LANG=LANG with {' or '.join(languages)} in front"
            )
        found[language] = other
    return found[languages[0]], found[languages[1]]


@dataclass(frozen=True)
class LineTokenizer:
    """Normalise, tokenise and lower-case lines of one language.

    Small and picklable: the sacremoses objects are made once in each process.

    Attributes:
        language: code known to the Moses tokenizer.
        normalize: normalise punctuation and turn non-printing characters into spaces first, as
            Moses' `normalize-punctuation.perl` and `remove-non-printing-char.perl`.
        aggressive_hyphens: split `a-b` into `a @-@ b`.
        lowercase: lower-case afterwards.
        moses: tokenise. False keeps raw text, for SentencePiece, with single spaces between words;
            `language` then matters for normalisation only and may be any, and no hyphen is split.
        substitute: (regular expression, replacement), each everywhere on the line, before all else.
    """

    language: str
    normalize: bool = False
    aggressive_hyphens: bool = False
    lowercase: bool = False
    moses: bool = True
    substitute: tuple[tuple[str, str], ...] = ()

    def __call__(self, line: str) -> str:
        """Tokens joined by spaces; characters special to Moses are escaped (`&apos;`)."""
        for expression, replacement in self.substitute:
            line = re.sub(expression, replacement, line)
        if self.normalize:
            line = normalize(line, self.language)
        if self.moses:
            text = _word_tokens(self.language, self.aggressive_hyphens)(line)
        else:
            text = " ".join(line.split())
        return text.lower() if self.lowercase else text

    def undo(self, tokens: str) -> str:
        """Text from tokens; case stays as it is."""
        if not self.moses:
            return tokens
        return _detokenizer(self.language).detokenize(re.split(r"\s+", tokens.strip()))

    def plain(self, token: str) -> str:
        """What a token stands for in raw text: without Moses' escapes."""
        if not self.moses:
            return token
        if token == "@-@":
            return "-"
        text: str = _detokenizer(self.language).unescape_xml(token)
        return text
