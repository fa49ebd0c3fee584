"""What requests ask and what they are told, in the form of LibreTranslate's interface.

`q` is a text or a list of texts, `source` and `target` are language codes, `alternatives` is how many
other translations are wanted; the answer has `translatedText` and `alternatives` (of a list of texts:
lists). An error is `{"error": "one line"}`. https://docs.libretranslate.com/guides/api_usage
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

#: Longest form of a character in a body: a surrogate pair in JSON, or four bytes in a form.
BYTES_PER_CHARACTER = 12
#: Room for the rest of a body.
OTHER_BYTES = 4096

FORM = "application/x-www-form-urlencoded"


class Refused(Exception):  # noqa: N818  (an answer, not a failure)
    """A request that is answered by an error."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers


@dataclass(frozen=True)
class Offer:
    """What the server translates.

    Attributes:
        source: language code.
        target: language code.
        char_limit: most characters of a request, each text and line end counting one more.
        max_alternatives: most other translations of a text.
    """

    source: str
    target: str
    char_limit: int = 5000
    max_alternatives: int = 4

    @property
    def max_bytes(self) -> int:
        """Longest body that can hold `char_limit` characters."""
        return BYTES_PER_CHARACTER * self.char_limit + OTHER_BYTES


@dataclass(frozen=True)
class Text:
    """A text as lines and the ends of each; that of the last is empty.

    >>> Text.of("a\\r\\n\\nb")
    Text(lines=('a', '', 'b'), ends=('\\r\\n', '\\n', ''))
    """

    lines: tuple[str, ...]
    ends: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Text":
        """Split a text at LF, CRLF and CR."""
        parts = re.split(r"(\r\n|\n|\r)", text)
        return cls(tuple(parts[::2]), (*parts[1::2], ""))

    def translations(self, found: Sequence[Sequence[str]]) -> list[str]:
        """Whole texts from the translations of every line, best first and each once.

        The k-th has the k-th best of each line, or the last of a line that has fewer.

        >>> Text.of("ein Hund\\n").translations([["a dog", "one dog"], [""]])
        ['a dog\\n', 'one dog\\n']
        """
        texts = []
        for rank in range(max(map(len, found))):
            lines = (line[min(rank, len(line) - 1)] for line in found)
            texts.append("".join(map("".join, zip(lines, self.ends, strict=True))))
        return list(dict.fromkeys(texts))


@dataclass(frozen=True)
class Request:
    """What to translate.

    Attributes:
        texts: the texts.
        as_list: whether they came in a list, as which the answer goes back.
        alternatives: how many other translations are wanted.
    """

    texts: tuple[Text, ...]
    as_list: bool
    alternatives: int = 0

    @property
    def lines(self) -> list[str]:
        """The lines of all texts."""
        return [line for text in self.texts for line in text.lines]

    def answer(self, found: Sequence[Sequence[str]]) -> dict[str, Any]:
        """The answer, from the translations of every one of `lines`, best first."""
        rest = iter(found)
        texts = [text.translations([next(rest) for _ in text.lines]) for text in self.texts]
        best = [translations[0] for translations in texts]
        others = [translations[1 : 1 + self.alternatives] for translations in texts]
        answer: dict[str, Any] = {"translatedText": best if self.as_list else best[0]}
        if self.alternatives:
            answer["alternatives"] = others if self.as_list else others[0]
        return answer


def read_fields(body: bytes, content_type: str) -> dict[str, Any]:
    """The fields of a body in JSON, or of a form.

    Raises:
        Refused: it is neither.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise Refused(415, f"Content-Type {kind}: send JSON (application/json)")
    try:
        if kind == FORM:
            form = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=100)
            return {name: values[0] for name, values in form.items()}
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise Refused(400, f"the body cannot be read: {reason}") from error
    if not isinstance(content, dict):
        raise Refused(400, 'the body is not a JSON object such as {"q": "text", ...}')
    return content


def parse(fields: Mapping[str, Any], offer: Offer) -> Request:
    """The request in the fields of a body; `source` may be `auto`, and fields not named are ignored.

    Raises:
        Refused: something is missing, has the wrong type, is too long or not what `offer` has.
    """
    q = fields.get("q")
    if q is None:
        raise Refused(400, "q is missing: the text to translate, in JSON (application/json)")
    texts = q if isinstance(q, list) else [q]
    if not all(isinstance(text, str) for text in texts):
        raise Refused(400, "q is neither a text nor a list of texts")
    _check_languages(fields, offer)
    if fields.get("format") not in (None, "", "text"):
        raise Refused(400, f"format {_short(fields['format'])}: only text is translated here")
    length = sum(map(len, texts)) + len(texts) - 1
    if length > offer.char_limit:
        raise Refused(413, f"q has {length} characters, of which {offer.char_limit} are allowed")
    return Request(
        tuple(Text.of(_valid(text)) for text in texts), q is texts, _alternatives(fields, offer)
    )


def _check_languages(fields: Mapping[str, Any], offer: Offer) -> None:
    for name, known in (("source", ("auto", offer.source)), ("target", (offer.target,))):
        if fields.get(name) in (None, ""):
            raise Refused(400, f"{name} is missing: a language code")
        if fields[name] not in known:
            raise Refused(
                400,
                f"{name} {_short(fields[name])} is not supported: this model translates from "
                f"{offer.source} to {offer.target}",
            )


def _alternatives(fields: Mapping[str, Any], offer: Offer) -> int:
    value = fields.get("alternatives")
    if value is None:
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit():  # from a form
        value = int(value[:9])
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= (
        offer.max_alternatives
    ):  # fmt: skip
        raise Refused(
            400, f"alternatives {_short(value)}: a number from 0 to {offer.max_alternatives}"
        )
    return value


def _short(value: object) -> str:
    """What a client sent, for an error."""
    text = _valid(str(value))
    return text if len(text) <= 40 else f"{text[:40]}..."


def _valid(text: str) -> str:
    """U+FFFD for halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
