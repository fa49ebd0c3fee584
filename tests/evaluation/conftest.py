"""Shared: small parallel text."""

import random

import pytest


@pytest.fixture(scope="session")
def text_files(tmp_path_factory):
    """Two systems of different quality and their reference: paths of 40-line files."""
    folder = tmp_path_factory.mktemp("text")
    rng = random.Random(1)
    words = [
        "Der",
        "kleine",
        "Hund",
        "läuft",
        "heute",
        "schnell",
        "über",
        "die",
        "Straße",
        "nach",
        "Hause",
        "zum",
        "Essen",
    ]
    references = [" ".join(rng.choices(words, k=rng.randint(4, 12))) + "." for _ in range(40)]

    def corrupt(line, probability):
        return " ".join(
            w if rng.random() > probability else rng.choice(words) for w in line.split()
        )

    texts = {
        "a.txt": [corrupt(line, 0.3) for line in references],
        "b.txt": [corrupt(line, 0.2) for line in references],
        "ref.txt": references,
    }
    for name, lines in texts.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [folder / name for name in texts]
