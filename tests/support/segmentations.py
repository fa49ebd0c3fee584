"""Random segmentations of words: their probabilities, and whether draws agree with them."""

from collections import Counter
from collections.abc import Iterable

import pytest

from admin_nmt.data.segmentations import Choice, Pieces, Process

TEXT = [
    "the lowest people in the lower house sleep the longest",
    "lalala lalala the slower people and the slowest newest houses",
    "barfuß läuft der Hund über die längste Straße und schläft",
] * 3


WORDS = ["lowest", "people", "lalalala", "barfuß", "x", "thehouse"]


DRAWS = 3000


def distribution(process: Process, word: str) -> dict[Pieces, float]:
    """Segmentation -> probability, by following all ways."""
    found: Counter[Pieces] = Counter()
    ways = [(1.0, process.start(word))]
    while ways:
        probability, state = ways.pop()
        step = process.step(state)
        if isinstance(step, Choice):
            ways.append((probability * step.probability, step.first))
            ways.append((probability * (1 - step.probability), step.second))
        else:
            found[step] += probability
    return found


def agree(expected: dict[Pieces, float], draws: Iterable[Iterable[str]]) -> None:
    """Relative frequencies within six standard deviations, and three draws for the rare ones: the draws
    of SentencePiece are others each time."""
    counts = Counter(tuple(pieces) for pieces in draws)
    number = sum(counts.values())
    assert sum(expected.values()) == pytest.approx(1)
    assert counts.keys() <= expected.keys()
    for pieces, probability in expected.items():
        deviation = (probability * (1 - probability) / number) ** 0.5
        assert counts[pieces] / number == pytest.approx(probability, abs=6 * deviation + 3 / number)
