"""The word-by-word language of `word_model`."""

import random

WORDS = {
    "Hund": "dog", "Katze": "cat", "Haus": "house", "läuft": "runs", "schläft": "sleeps",
    "grün": "green", "sieht": "sees", "Straße": "street",
}  # fmt: skip


def sentence(rng: random.Random, longest: int = 7) -> list[str]:
    """German words."""
    return rng.choices(list(WORDS), k=rng.randint(2, longest))


GERMAN = ["Hund läuft.", "", "Straße sieht grün Haus Katze.", "  ", "Katze schläft."]


ENGLISH = ["dog runs.", "", "street sees green house cat.", "", "cat sleeps."]
