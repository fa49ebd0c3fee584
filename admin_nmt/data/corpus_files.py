"""Reads a corpus file: YAML, checked against a schema, which becomes a `corpora.Corpus`.

The files of the known corpora lie in `corpora/` beside this module; a user's own file works the
same way, so adding a corpus needs no code. `corpora/wmt14-en-de.yaml` shows every key.
"""

import copy
import json
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Tag, ValidationError

from admin_nmt.data.corpora import (
    Archive,
    Cleaning,
    Corpus,
    Rules,
    SentencePieceSettings,
    Source,
    archive_names,
    check_corpus,
)
from admin_nmt.errors import UsageError, UserError

FOLDER = Path(__file__).parent / "corpora"

_CHECKSUM = re.compile("sha256:[0-9a-f]{64}|sha1:[0-9a-f]{40}|md5:[0-9a-f]{32}")


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
    return _corpus(_validated(content, path), path, variant)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; mappings merge key by key, all else is replaced."""
    merged = copy.copy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _known_placeholders(template: str) -> str:
    if set(re.findall(r"\{(\w*)\}", template)) - {"lang", "role"}:
        raise ValueError("the placeholders are {lang} and {role}")
    return template


def _known_checksum(checksum: str) -> str:
    if not _CHECKSUM.fullmatch(checksum):
        raise ValueError(
            "checksum must be null or sha256:, sha1: or md5: with its hexadecimal digits"
        )
    return checksum


def _compiles(substitution: tuple[str, str]) -> tuple[str, str]:
    expression, replacement = substitution
    try:
        re.compile(expression).sub(replacement, "")
    except re.error as error:
        raise ValueError(f"bad regular expression: {error}") from error
    if len(f".{replacement}.".splitlines()) > 1 or r"\n" in replacement:
        raise ValueError(f"the replacement {replacement!r} would make two lines of one")
    return substitution


_Template = Annotated[str, AfterValidator(_known_placeholders)]
_Substitutions = tuple[Annotated[tuple[str, str], AfterValidator(_compiles)], ...]


class _Schema(BaseModel):
    """A mapping whose keys are all known."""

    model_config = ConfigDict(extra="forbid")


class _Languages(_Schema):
    source: str
    target: str


class _Archive(_Schema):
    url: str
    checksum: Annotated[str, AfterValidator(_known_checksum)] | None = None
    size: int | None = None


class _Rules(_Schema):
    drop_lines: tuple[str, ...] = ()
    keep_lines: tuple[str, ...] = ()
    substitute: _Substitutions = ()


class _Source(_Schema):
    archive: _Template
    member: _Template | None = None
    rules: str | None = None


class _HeldOut(_Schema):
    every: int


class _Sets(_Schema):
    train: list[_Source]
    valid: Annotated[
        Annotated[list[_Source], Tag("files")] | Annotated[_HeldOut, Tag("held out")],
        Discriminator(lambda given: "held out" if isinstance(given, dict | _HeldOut) else "files"),
    ]
    test: list[_Source]


class _Text(_Schema):
    substitute: dict[str, _Substitutions] = {}
    normalize: tuple[str, ...] = ()
    aggressive_hyphens: bool = False
    lowercase: bool = False
    invalid_utf8: str = "error"
    refuse_empty: bool = False


class _File(_Schema):
    description: str = ""
    languages: _Languages
    archives: dict[str, _Archive]
    rules: dict[str, _Rules] = {}
    sets: _Sets
    text: _Text = _Text()
    cleaning: Cleaning = Cleaning()
    subword: str = Corpus.subword
    sentencepiece: SentencePieceSettings = SentencePieceSettings()
    bpe_tokens: int
    joined_dictionary: bool = False
    published_lines: dict[str, int] = {}


def _validated(content: dict[str, Any], path: Path) -> _File:
    """Strictly, so that neither `true` nor `"5"` passes for a number."""
    try:
        # As JSON, whose arrays and objects are also strictly the schema's tuples and mappings.
        return _File.model_validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    *parents, key = map(str, first["loc"])
    where = ": ".join([str(path), *([".".join(parents)] if parents else [])])
    if first["type"] == "missing":
        raise UserError(f"{where}: key {key!r} is missing")
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        raise UserError(f"{where}: unknown key {key!r}")
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
    name = ".".join([*parents, key])
    raise UserError(f"{path}: {name}: {message}, not {first['input']!r}")


def _corpus(file: _File, path: Path, variant: str | None) -> Corpus:
    languages = file.languages.source, file.languages.target
    rules = {name: Rules(**dict(entry)) for name, entry in file.rules.items()}

    def sources(items: list[_Source], name: str) -> tuple[Source, ...]:
        for item in items:
            if item.rules is not None and item.rules not in rules:
                raise UserError(f"{path}: sets.{name}: there are no rules named {item.rules!r}")
        return tuple(
            Source(item.archive, item.member, rules[item.rules] if item.rules else Rules())
            for item in items
        )

    held_out = file.sets.valid if isinstance(file.sets.valid, _HeldOut) else None
    corpus = Corpus(
        name=path.stem,
        languages=languages,
        tokenizer_langs=languages,
        archives={name: Archive(name, **dict(entry)) for name, entry in file.archives.items()},
        sources={
            name: sources(items, name)
            for name, items in file.sets
            if not isinstance(items, _HeldOut)
        },
        valid_every=held_out.every if held_out else None,
        **dict(file.text),
        cleaning=file.cleaning,
        subword=file.subword,
        sentencepiece=file.sentencepiece,
        bpe_tokens=file.bpe_tokens,
        joined_dictionary=file.joined_dictionary,
        published_lines=file.published_lines,
        variant=variant,
    )
    for items in corpus.sources.values():
        for name in {name for item in items for name in archive_names(item, languages)}:
            if name not in corpus.archives:
                raise UserError(f"{path}: archive {name!r} of sets is not under archives")
    check_corpus(corpus, str(path))
    return corpus
