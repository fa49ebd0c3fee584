"""Corpora as data: where a corpus comes from and how it is prepared; `corpus_files` reads one.

Placeholders in the names of archives and members: `{lang}` is the language code, `{role}` is `src`
on the source side and `ref` on the target side.
"""

import re
from dataclasses import dataclass, field

from admin_nmt.data.sentence_pieces import MODEL_TYPES
from admin_nmt.data.subwords import SUBWORD_KINDS
from admin_nmt.errors import UserError

SETS = ("train", "valid", "test")


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        url: where it is; None for a local file.
        checksum: `ALGORITHM:HEX`; None where no published one is known, then the one of the first
            download is recorded.
        size: bytes, if known.
    """

    name: str
    url: str | None = None
    checksum: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Rules:
    """What happens to the lines of a file before anything else, in this order.

    Attributes:
        drop_lines: lines with one of these strings go.
        keep_lines: if given, only lines with one of these strings stay.
        substitute: (regular expression, replacement), each everywhere on the line.
    """

    drop_lines: tuple[str, ...] = ()
    keep_lines: tuple[str, ...] = ()
    substitute: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Source:
    """A pair of parallel files.

    Attributes:
        archive: name of the archive, or of the plain or gzip file itself; may hold placeholders.
        member: path inside the archive; a member that ends in `.gz` is unpacked too.
    """

    archive: str
    member: str | None = None
    rules: Rules = Rules()


@dataclass(frozen=True)
class Cleaning:
    """Which training pairs stay; see `clean.clean_pair`.

    Attributes:
        when: `before_bpe` counts words, `after_bpe` counts subwords.
    """

    when: str = "before_bpe"
    ratio: float = 9.0
    min_length: int = 1
    max_length: int = 175


@dataclass(frozen=True)
class SentencePieceSettings:
    """How SentencePiece learns; see `sentence_pieces.learn`."""

    model_type: str = "unigram"
    character_coverage: float = 1.0


@dataclass(frozen=True)
class Corpus:
    """Everything that determines the prepared text.

    Attributes:
        languages: source and target code; they name the files.
        tokenizer_langs: codes given to the Moses tokenizer, for source and target.
        archives: by name.
        sources: set -> its parallel files, joined in this order.
        valid_every: hold out every N-th training pair for validation; None if there are own files for it.
        substitute: set -> what is replaced, (regular expression, replacement), before it is normalised
            and tokenised; its raw text stays as published, so that scores compare.
        normalize: sets whose punctuation and non-printing characters are normalised.
        invalid_utf8: `error` refuses bytes that are not UTF-8, `replace` reads them as U+FFFD.
        refuse_empty: an empty line in a valid or test file is an error; else it is named and stays.
        subword: one of `subwords.SUBWORD_KINDS`; `sentencepiece` takes raw text in place of Moses tokens.
        sentencepiece: how it learns.
        bpe_tokens: number of BPE merges, or of pieces of SentencePiece; learned on both languages
            together.
        joined_dictionary: one vocabulary for both languages.
        published_lines: set -> its number of pairs in the published preparation; another is a warning.
    """

    name: str
    languages: tuple[str, str]
    tokenizer_langs: tuple[str, str]
    sources: dict[str, tuple[Source, ...]]
    archives: dict[str, Archive]
    valid_every: int | None = None
    substitute: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    normalize: tuple[str, ...] = ()
    aggressive_hyphens: bool = False
    lowercase: bool = False
    invalid_utf8: str = "error"
    refuse_empty: bool = False
    cleaning: Cleaning = Cleaning()
    subword: str = next(iter(SUBWORD_KINDS))
    sentencepiece: SentencePieceSettings = SentencePieceSettings()
    bpe_tokens: int = 10000
    joined_dictionary: bool = False
    published_lines: dict[str, int] = field(default_factory=dict)
    variant: str | None = None


def check_corpus(corpus: Corpus, where: str, kind: type[UserError] = UserError) -> None:
    """Refuse values out of range.

    Args:
        where: what to name in the message: the corpus file, or the command line.
        kind: the exception to raise.

    Raises:
        UserError: names the setting and its value.
    """
    cleaning, pieces = corpus.cleaning, corpus.sentencepiece
    problems = {
        f"subword must be {' or '.join(SUBWORD_KINDS)}, not {corpus.subword!r}": (
            corpus.subword not in SUBWORD_KINDS
        ),
        f"model_type of sentencepiece must be {' or '.join(MODEL_TYPES)}, not "
        f"{pieces.model_type!r}": pieces.model_type not in MODEL_TYPES,
        f"character_coverage of sentencepiece must be over 0 and at most 1, not "
        f"{pieces.character_coverage}": not 0 < pieces.character_coverage <= 1,
        "aggressive_hyphens go with subword-nmt only: sentencepiece takes raw text": (
            corpus.subword == "sentencepiece" and corpus.aggressive_hyphens
        ),
        f"invalid_utf8 must be error or replace, not {corpus.invalid_utf8!r}": (
            corpus.invalid_utf8 not in ("error", "replace")
        ),
        f"normalize may name {', '.join(SETS)}, not {list(corpus.normalize)}": bool(
            set(corpus.normalize) - set(SETS)
        ),
        f"substitute may name {', '.join(SETS)}, not {list(corpus.substitute)}": bool(
            set(corpus.substitute) - set(SETS)
        ),
        f"published_lines may name {', '.join(SETS)}, not {list(corpus.published_lines)}": bool(
            set(corpus.published_lines) - set(SETS)
        ),
        f"bpe_tokens (BPE merges) must be at least 1, not {corpus.bpe_tokens}": (
            corpus.bpe_tokens < 1
        ),
        f"every Nth line for valid: N must be at least 2, not {corpus.valid_every}": (
            corpus.valid_every is not None and corpus.valid_every < 2
        ),
        f"cleaning must be before_bpe or after_bpe, not {cleaning.when!r}": (
            cleaning.when not in ("before_bpe", "after_bpe")
        ),
        f"the clean ratio must be at least 1, not {cleaning.ratio}": not cleaning.ratio >= 1,
        f"lengths must be 1 <= min_length <= max_length, not {cleaning.min_length} and "
        f"{cleaning.max_length}": not 1 <= cleaning.min_length <= cleaning.max_length,
        f"source and target language are both {corpus.languages[0]!r}": (
            corpus.languages[0] == corpus.languages[1]
        ),
    }
    for language in corpus.languages:
        problems[f"language code {language!r}: use letters, digits and _ only"] = not re.fullmatch(
            r"\w+", language, re.ASCII
        )
    for problem, present in problems.items():
        if present:
            raise kind(f"{where}: {problem}")


def fill(template: str, languages: tuple[str, str], side: int) -> str:
    """Put language and role of one side (0 source, 1 target) into a name."""
    return template.replace("{lang}", languages[side]).replace("{role}", ("src", "ref")[side])


def archive_names(source: Source, languages: tuple[str, str]) -> list[str]:
    """The archives of the two sides; one name if both sides are in one archive."""
    return list(dict.fromkeys(fill(source.archive, languages, side) for side in (0, 1)))
