"""`fairseq-score --sacrebleu` with today's sacreBLEU."""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

from admin_nmt.host.errors import program
from admin_nmt.host.patch import Patch, Scope


def _lines(text: Iterable[str]) -> Sequence[str]:
    """Lines without their ends, of an open file; anything else is a sequence already."""
    return text if isinstance(text, Sequence) else [line.rstrip("\n") for line in text]


def _of_files(corpus_bleu: Callable) -> Callable:
    """`fairseq-score --sacrebleu` hands sacreBLEU open files, which since its version 2 it refuses in a
    TypeError: they are read first."""

    @wraps(corpus_bleu)
    def wrapped(hypotheses: Any, references: Any, *args: Any, **kwargs: Any) -> Any:
        read = [_lines(reference) for reference in references]
        return corpus_bleu(_lines(hypotheses), read, *args, **kwargs)

    return wrapped


def _is_fairseq_score() -> bool:
    return program() == "fairseq-score"


PATCHES = (Patch("sacrebleu", "corpus_bleu", _of_files, Scope.FAILURES, applies=_is_fairseq_score),)
