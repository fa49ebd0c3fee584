"""Minimum Bayes risk decoding (Kumar and Byrne 2004; Eikema and Aziz 2020) over n-best lists.

Beam search looks for the most probable translation. This chooses the one that is most similar to all others:
with hypotheses h_i of one sentence, weights w_j that sum to 1 and a utility u(h_i, h_j) of taking
h_i where h_j is right, it chooses argmax_i sum_j w_j u(h_i, h_j). The n x n utilities of a sentence
come from n-grams that are counted once per hypothesis.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.typing import NDArray

from admin_nmt.errors import UsageError, UserError

Matrix = NDArray[np.float64]
#: Where `count_lists` looks for the last line.
_LAST_BYTES = 1 << 16
#: n hypotheses -> (n, n): row i has the utility of hypothesis i against each other one.
Utility = Callable[[Sequence[str]], Matrix]


def mbr(hypotheses: Sequence[str], utility: Utility, weights: Sequence[float] | None = None) -> int:
    """The index of the hypothesis of the highest expected utility; of equal ones the first.

    Args:
        hypotheses: n translations of one sentence; copies count as often as they are there.
        utility: `chrf_utility`, `bleu_utility` or another.
        weights: n positive numbers, which need not sum to 1; None weighs all alike.

    >>> mbr(["a cat", "the dog runs", "this dog runs"], chrf_utility)
    2
    >>> mbr(["a cat", "the dog runs", "this dog runs"], chrf_utility, [98, 1, 1])
    0
    """
    # Samples repeat: the utilities of copies are computed once.
    mass = dict.fromkeys(hypotheses, 0.0)
    for text, weight in zip(hypotheses, weights or [1.0] * len(hypotheses), strict=True):
        mass[text] += weight
    distinct = list(mass)
    expected = utility(distinct) @ np.array(list(mass.values()))
    return hypotheses.index(distinct[int(expected.argmax())])


def posterior(scores: Sequence[float], temperature: float) -> list[float]:
    """Weights exp(score / temperature), of which the largest is 1; small numbers trust scores more."""
    best = max(scores)
    return [float(np.exp((score - best) / temperature)) for score in scores]


def chrf_utility(hypotheses: Sequence[str]) -> Matrix:
    """sacreBLEU's sentence-level chrF2 of every hypothesis against every other: (n, n)."""
    from sacrebleu.metrics import CHRF
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    grams = [extract_all_char_ngrams(text, CHRF.CHAR_ORDER) for text in hypotheses]
    shape = len(hypotheses), len(hypotheses)
    precision, recall, orders = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for counts in zip(*grams, strict=True):
        matches, totals = common_ngrams(counts)
        # Orders longer than either text do not count.
        both = (totals[:, None] > 0) & (totals[None, :] > 0)
        orders += both
        precision += np.divide(matches, totals[:, None], out=np.zeros(shape), where=both)
        recall += np.divide(matches, totals[None, :], out=np.zeros(shape), where=both)
    # F of the means over orders, whose number cancels but in one factor.
    factor = CHRF.BETA**2
    below = (factor * precision + recall) * orders
    product = (1 + factor) * precision * recall
    return 100 * np.divide(product, below, out=np.zeros(shape), where=below > 0)


def bleu_utility(hypotheses: Sequence[str]) -> Matrix:
    """sacreBLEU's sentence-level BLEU of every hypothesis against every other: (n, n)."""
    from sacrebleu.metrics import BLEU
    from sacrebleu.metrics.helpers import extract_all_word_ngrams

    metric = BLEU(effective_order=True)
    words = [metric.tokenizer(text.rstrip()) for text in hypotheses]
    lengths = [len(text.split()) for text in words]
    orders = range(1, metric.max_ngram_order + 1)
    found = [
        common_ngrams([extract_all_word_ngrams(text, order, order)[0] for text in words])
        for order in orders
    ]
    matches = np.stack([found_matches for found_matches, _ in found]).astype(int)
    totals = np.stack([found_totals for _, found_totals in found]).astype(int)
    utilities = np.zeros((len(words), len(words)))
    for i, j in np.ndindex(utilities.shape):
        utilities[i, j] = metric.compute_bleu(
            matches[:, i, j].tolist(), totals[:, i].tolist(), lengths[i], lengths[j],
            smooth_method=metric.smooth_method, effective_order=True,
        ).score  # fmt: skip
    return utilities


def common_ngrams(counts: Sequence[Counter]) -> tuple[Matrix, Matrix]:
    """How many n-grams each two texts share, clipped, and how many each has.

    The k-th copy of an n-gram is an item of its own, so that min(a, b) common copies are the size
    of an intersection of sets, and all intersections one product of matrices.

    Args:
        counts: of the n-grams of n texts.

    Returns:
        (n, n) and (n,).
    """
    columns: dict[tuple[object, int], int] = {}
    rows: list[list[int]] = []
    for counter in counts:
        copies = [(gram, k) for gram, count in counter.items() for k in range(count)]
        rows.append([columns.setdefault(copy, len(columns)) for copy in copies])
    has = np.zeros((len(rows), len(columns)), dtype=np.float32)  # exact up to 2 ** 24 n-grams
    for place, row in enumerate(rows):
        has[place, row] = 1
    return (has @ has.T).astype(np.float64), np.array([float(len(row)) for row in rows])


#: What `admin-nmt mbr --utility` may be.
UTILITIES: dict[str, Utility] = {"chrf": chrf_utility, "bleu": bleu_utility}


@dataclass(frozen=True)
class NBest:
    """The hypotheses of one sentence and the model's scores."""

    texts: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def read_nbest(lines: Iterable[str]) -> Iterator[NBest]:
    """The lists that `admin-nmt translate --nbest N` writes: number, tab, score, tab, translation.

    Raises:
        UserError: a line of another form, or numbers that do not go up from 1 one by one.
    """
    current, number = NBest(), 1
    for place, line in enumerate(lines, start=1):
        parts = line.split("\t", 2)
        try:
            found, score, text = int(parts[0]), float(parts[1]), parts[2]
        except (ValueError, IndexError):
            raise UserError(
                f"line {place} of the n-best lists is not 'number, tab, score, tab, translation', as "
                "admin-nmt translate --nbest N writes it"
            ) from None
        if found == number + 1 and current.texts:
            yield current
            current, number = NBest(), found
        if found != number:
            raise UserError(
                f"line {place} of the n-best lists is of sentence {found}, expected {number}: give "
                "the lists of all sentences in their order"
            )
        current.texts.append(text)
        current.scores.append(score)
    if current.texts:
        yield current


def count_lists(stream: IO[bytes]) -> int | None:
    """How many lists lie ahead in a file, by the number of its last line; None where no end is in sight.

    The place in the file stays as it is. What is there is checked by `read_nbest` only.
    """
    if not stream.seekable():
        return None
    place = stream.tell()
    stream.seek(max(place, stream.seek(0, os.SEEK_END) - _LAST_BYTES))
    last = stream.read(_LAST_BYTES).rstrip(b"\r\n").rpartition(b"\n")[2]
    stream.seek(place)
    number = last.partition(b"\t")[0]
    return int(number) if number.isdigit() else None


def choose(nbest: NBest, utility: str = "chrf", temperature: float | None = None) -> str:
    """The translation that `mbr` takes from a list.

    Args:
        nbest: of one sentence.
        utility: one of `UTILITIES`.
        temperature: weigh by `posterior` of the scores; None weighs all alike, as samples are.

    Raises:
        UsageError: a temperature that is not positive.
    """
    if temperature is not None and not temperature > 0:
        raise UsageError(f"--temperature {temperature}: give a number above 0")
    weights = None if temperature is None else posterior(nbest.scores, temperature)
    return nbest.texts[mbr(nbest.texts, UTILITIES[utility], weights)]
