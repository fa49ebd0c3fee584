"""Raw text to Moses tokens and back, with sacremoses; or to raw text in a tidy form."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from admin_nmt.errors import UserError


@cache
def _tokenizer(language: str) -> Any:
    from sacremoses import MosesTokenizer

    return MosesTokenizer(lang=language)


@cache
def _detokenizer(language: str) -> Any:
    from sacremoses import MosesDetokenizer

    return MosesDetokenizer(lang=language)


@cache
def _normalizer(language: str) -> Any:
    from sacremoses import MosesPunctNormalizer

    # perl_parity: where the port and the Perl script of the published recipes differ, the script.
    return MosesPunctNormalizer(lang=language, perl_parity=True)


@cache
def _non_printing() -> Any:
    import regex  # a requirement of sacremoses; the standard library has no \p{C}

    return regex.compile(r"\p{C}")


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
    """

    language: str
    normalize: bool = False
    aggressive_hyphens: bool = False
    lowercase: bool = False
    moses: bool = True

    def __call__(self, line: str) -> str:
        """Tokens joined by spaces; characters special to Moses are escaped (`&apos;`)."""
        if self.normalize:
            line = _non_printing().sub(" ", _normalizer(self.language).normalize(line))
        text = self._tokens(line) if self.moses else " ".join(line.split())
        return text.lower() if self.lowercase else text

    def _tokens(self, line: str) -> str:
        text: str = _tokenizer(self.language).tokenize(
            line, aggressive_dash_splits=self.aggressive_hyphens, return_str=True
        )
        return text

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
