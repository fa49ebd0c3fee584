"""Corpora as data: one YAML file says where a corpus comes from and how it is prepared.

The files of the known corpora lie in `corpora/` beside this module; a user's own file works the
same way, so adding a corpus needs no code. `corpora/wmt14-en-de.yaml` shows every key. Placeholders
in file and member names: `{lang}` is the language code, `{role}` is `src` on the source side and
`ref` on the target side.
"""

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from admin_nmt.data.sentence_pieces import MODEL_TYPES
from admin_nmt.data.subwords import KINDS
from admin_nmt.errors import UsageError, UserError

SETS = ("train", "valid", "test")
FOLDER = Path(__file__).parent / "corpora"

_CHECKSUM_LENGTHS = {"sha256": 64, "md5": 32, "sha1": 40}
_HEX_DIGITS = set("0123456789abcdef")
_REQUIRED = object()


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
        normalize: sets whose punctuation and non-printing characters are normalised.
        invalid_utf8: `error` refuses bytes that are not UTF-8, `replace` reads them as U+FFFD.
        refuse_empty: an empty line in a valid or test file is an error; else it is named and stays.
        subword: one of `subwords.KINDS`; `sentencepiece` takes raw text in place of Moses tokens.
        sentencepiece: how it learns.
        bpe_tokens: number of BPE merges, or of pieces of SentencePiece; learned on both languages
            together.
        joined_dictionary: one vocabulary for both languages.
    """

    name: str
    languages: tuple[str, str]
    tokenizer_langs: tuple[str, str]
    sources: dict[str, tuple[Source, ...]]
    archives: dict[str, Archive]
    valid_every: int | None = None
    normalize: tuple[str, ...] = ()
    aggressive_hyphens: bool = False
    lowercase: bool = False
    invalid_utf8: str = "error"
    refuse_empty: bool = False
    cleaning: Cleaning = Cleaning()
    subword: str = next(iter(KINDS))
    sentencepiece: SentencePieceSettings = SentencePieceSettings()
    bpe_tokens: int = 10000
    joined_dictionary: bool = False
    variant: str | None = None


def corpus_names() -> list[str]:
    """Names of the corpora that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_corpus(name: str, variant: str | None = None) -> Corpus:
    """Read and check a corpus file.

    Args:
        name: one of `corpus_names()`, or the path of a YAML file.
        variant: one of the file's `variants`, laid over its other keys.

    Raises:
        UsageError: there is no such corpus or variant.
        UserError: the file is not as it should be; the message names file and key.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"unknown corpus {name!r}: choose one of {', '.join(corpus_names())}, custom, "
            "or the path of a corpus file (.yaml)"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"cannot read corpus file {path}: {text}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a corpus file must be a mapping of keys to values")
    variants = content.pop("variants", None) or {}
    if variant is not None:
        if not isinstance(variants, dict) or variant not in variants:
            known = f"it has {', '.join(variants)}" if variants else "it has none"
            raise UsageError(f"corpus {path.stem} has no variant {variant!r}: {known}")
        if not isinstance(variants[variant], dict):
            raise UserError(f"{path}: variants.{variant} must be a mapping of keys to values")
        content = _merge(content, variants[variant])
    return _parse_corpus(content, path, variant)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; mappings merge key by key, all else is replaced."""
    merged = copy.copy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


class _Fields:
    """Takes typed values out of a mapping; complaints name the file and the key."""

    def __init__(self, content: Any, where: str) -> None:
        if not isinstance(content, dict):
            raise UserError(f"{where} must be a mapping of keys to values")
        self.content = dict(content)
        self.where = where

    def take(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        """The value of `key`, removed from what is left."""
        if key not in self.content:
            if default is _REQUIRED:
                raise UserError(f"{self.where}: key {key!r} is missing")
            return default
        value = self.content.pop(key)
        if value is None and default is None:
            return None
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise UserError(f"{self.where}: {key} must be of type {kind.__name__}, not {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """An optional list of strings."""
        values = self.take(key, list, [])
        if not all(isinstance(value, str) for value in values):
            raise UserError(f"{self.where}: {key} must be a list of strings, not {values!r}")
        return tuple(values)

    def finish(self) -> None:
        """Refuse keys that nobody took."""
        if self.content:
            raise UserError(f"{self.where}: unknown key {next(iter(self.content))!r}")


def _parse_corpus(content: dict[str, Any], path: Path, variant: str | None) -> Corpus:
    fields = _Fields(content, str(path))
    fields.take("description", str, "")
    languages = _parse_languages(fields)
    archives = _parse_archives(fields.take("archives", dict), str(path))
    rules = {
        name: _parse_rules(value, f"{path}: rules.{name}")
        for name, value in fields.take("rules", dict, {}).items()
    }
    sources, valid_every = _parse_sets(fields.take("sets", dict), rules, str(path))
    _require_known_archives(sources, archives, languages, str(path))
    text = _Fields(fields.take("text", dict, {}), f"{path}: text")
    corpus = Corpus(
        name=path.stem,
        languages=languages,
        tokenizer_langs=languages,
        archives=archives,
        sources=sources,
        valid_every=valid_every,
        normalize=text.texts("normalize"),
        aggressive_hyphens=text.take("aggressive_hyphens", bool, False),
        lowercase=text.take("lowercase", bool, False),
        invalid_utf8=text.take("invalid_utf8", str, "error"),
        refuse_empty=text.take("refuse_empty", bool, False),
        cleaning=_parse_cleaning(fields.take("cleaning", dict, {}), f"{path}: cleaning"),
        subword=fields.take("subword", str, Corpus.subword),
        sentencepiece=_parse_sentencepiece(
            fields.take("sentencepiece", dict, {}), f"{path}: sentencepiece"
        ),
        bpe_tokens=fields.take("bpe_tokens", int),
        joined_dictionary=fields.take("joined_dictionary", bool, False),
        variant=variant,
    )
    text.finish()
    fields.finish()
    check_corpus(corpus, str(path))
    return corpus


def _parse_languages(fields: _Fields) -> tuple[str, str]:
    languages = _Fields(fields.take("languages", dict), f"{fields.where}: languages")
    pair = languages.take("source", str), languages.take("target", str)
    languages.finish()
    return pair


def _parse_archives(content: dict[str, Any], where: str) -> dict[str, Archive]:
    archives = {}
    for name, value in content.items():
        fields = _Fields(value, f"{where}: archives.{name}")
        archive = Archive(
            name,
            fields.take("url", str),
            fields.take("checksum", str, None),
            fields.take("size", int, None),
        )
        fields.finish()
        if archive.checksum is not None:
            algorithm, _, digits = archive.checksum.partition(":")
            if len(digits) != _CHECKSUM_LENGTHS.get(algorithm) or not set(digits) <= _HEX_DIGITS:
                raise UserError(
                    f"{fields.where}: checksum must be null or sha256:, sha1: or md5: with its "
                    f"hexadecimal digits, not {archive.checksum!r}"
                )
        archives[name] = archive
    return archives


def _parse_rules(content: Any, where: str) -> Rules:
    fields = _Fields(content, where)
    substitutions = fields.take("substitute", list, [])
    for item in substitutions:
        if not (isinstance(item, list) and [type(part) for part in item] == [str, str]):
            raise UserError(f"{where}: substitute must list [expression, replacement] pairs")
        try:
            re.compile(item[0]).sub(item[1], "")
        except re.error as error:
            raise UserError(f"{where}: bad regular expression in {item!r}: {error}") from error
    rules = Rules(
        fields.texts("drop_lines"),
        fields.texts("keep_lines"),
        tuple((expression, replacement) for expression, replacement in substitutions),
    )
    fields.finish()
    return rules


def _parse_sets(
    content: dict[str, Any], rules: dict[str, Rules], where: str
) -> tuple[dict[str, tuple[Source, ...]], int | None]:
    """The sources of each set, and the interval of valid lines if valid is cut from train."""
    sets = _Fields(content, f"{where}: sets")
    valid_every = None
    if isinstance(sets.content.get("valid"), dict):
        split = _Fields(sets.take("valid", dict), f"{where}: sets.valid")
        valid_every = split.take("every", int)
        split.finish()
    sources = {}
    for name in SETS:
        if name == "valid" and valid_every is not None:
            continue
        items = sets.take(name, list)
        label = f"{where}: sets.{name}"
        sources[name] = tuple(_parse_source(item, rules, label) for item in items)
    sets.finish()
    return sources, valid_every


def _parse_source(content: Any, rules: dict[str, Rules], where: str) -> Source:
    fields = _Fields(content, where)
    archive, member = fields.take("archive", str), fields.take("member", str, None)
    rules_name = fields.take("rules", str, None)
    fields.finish()
    if rules_name is not None and rules_name not in rules:
        raise UserError(f"{where}: there are no rules named {rules_name!r}")
    for template in (archive, member or ""):
        unknown = set(re.findall(r"\{(\w*)\}", template)) - {"lang", "role"}
        if unknown:
            raise UserError(f"{where}: {template!r}: the placeholders are {{lang}} and {{role}}")
    return Source(archive, member, rules[rules_name] if rules_name else Rules())


def _parse_cleaning(content: dict[str, Any], where: str) -> Cleaning:
    fields = _Fields(content, where)
    cleaning = Cleaning(
        fields.take("when", str, "before_bpe"),
        fields.take("ratio", float, 9.0),
        fields.take("min_length", int, 1),
        fields.take("max_length", int, 175),
    )
    fields.finish()
    return cleaning


def _parse_sentencepiece(content: dict[str, Any], where: str) -> SentencePieceSettings:
    fields, default = _Fields(content, where), SentencePieceSettings()
    settings = SentencePieceSettings(
        fields.take("model_type", str, default.model_type),
        fields.take("character_coverage", float, default.character_coverage),
    )
    fields.finish()
    return settings


def _require_known_archives(
    sources: dict[str, tuple[Source, ...]],
    archives: dict[str, Archive],
    languages: tuple[str, str],
    where: str,
) -> None:
    for items in sources.values():
        for source in items:
            for name in archive_names(source, languages):
                if name not in archives:
                    raise UserError(f"{where}: archive {name!r} of sets is not under archives")


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
        f"subword must be {' or '.join(KINDS)}, not {corpus.subword!r}": (
            corpus.subword not in KINDS
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
