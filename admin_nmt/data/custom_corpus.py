"""The corpus `custom`: parallel files of the user's own."""

from collections.abc import Mapping
from pathlib import Path

from admin_nmt.data.corpora import Cleaning, Corpus, Source
from admin_nmt.data.subwords import SUBWORD_KINDS


def custom_corpus(
    languages: tuple[str, str],
    prefixes: Mapping[str, str | Path],
    *,
    valid_every: int | None = None,
    subword: str | None = None,
) -> tuple[Corpus, dict[str, Path]]:
    """The corpus, and its files by the names that it gives them.

    Args:
        prefixes: set -> PREFIX of its files PREFIX.LANG or PREFIX.LANG.gz.
        valid_every: hold out every N-th training pair for validation.
        subword: one of `subwords.SUBWORD_KINDS`; by default the first.
    """
    files = {
        f"{name}.{language}": _find_file(f"{prefix}.{language}")
        for name, prefix in prefixes.items()
        for language in languages
    }
    subword = subword or next(iter(SUBWORD_KINDS))
    # Words do not measure raw text: a script without spaces has one word in a line.
    cleaning = Cleaning(when="after_bpe" if subword == "sentencepiece" else "before_bpe")
    corpus = Corpus(
        name="custom",
        languages=languages,
        tokenizer_langs=languages,
        sources={name: (Source(name + ".{lang}"),) for name in prefixes},
        archives={},
        valid_every=valid_every,
        cleaning=cleaning,
        subword=subword,
    )
    return corpus, files


def _find_file(name: str) -> Path:
    """`name`, or the same with .gz; the plain name if neither is there, for the message."""
    compressed = Path(name + ".gz")
    return compressed if compressed.is_file() and not Path(name).is_file() else Path(name)
