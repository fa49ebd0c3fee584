"""Shared: small parallel text, and one tiny model trained by real fairseq processes."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


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


def run_tool(name, *arguments):
    """Run an installed program; its output, or an error that shows it."""
    result = subprocess.run(
        [str(BIN / name), *map(str, arguments)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A folder with `data-bin` (de-en, BPE marks), `raw.en` and two epochs of a tiny model in
    `checkpoints`: `checkpoint1.pt`, `checkpoint2.pt` and `checkpoint_E_U.pt` every 4 updates."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = random.Random(2)
    german = ["ein@@ e", "haus", "tür", "well-bekannt", "gut", "läuft", "nie@@ mals"]
    english = ["a", "hou@@ se", "door", "well-known", "good", "ru@@ ns", "never"]
    for split, size in (("train", 64), ("valid", 8), ("test", 20)):
        choices = [rng.choices(range(7), k=rng.randint(2, 9)) for _ in range(size)]
        for language, words in (("de", german), ("en", english)):
            lines = [" ".join(words[i] for i in choice) + " ." for choice in choices]
            (folder / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    raw = (folder / "test.en").read_text(encoding="utf-8").replace("@@ ", "").replace(" .", ".")
    (folder / "raw.en").write_text(raw.replace("house", "House"), encoding="utf-8")
    splits = [f"--{name}pref={folder / name}" for name in ("train", "valid", "test")]
    run_tool("fairseq-preprocess", "-s", "de", "-t", "en", *splits, "--destdir",
             folder / "data-bin", "--bpe", "subword_nmt")  # fmt: skip
    sizes = ["--encoder-layers=1", "--decoder-layers=1"]
    sizes += [f"--{side}-{size}" for side in ("encoder", "decoder")
              for size in ("embed-dim=16", "ffn-embed-dim=16", "attention-heads=2")]  # fmt: skip
    run_tool("fairseq-train", folder / "data-bin", "--arch", "transformer", *sizes, "--cpu",
             "--share-decoder-input-output-embed", "--optimizer", "adam", "--lr", "0.01",
             "--batch-size", "8", "--max-epoch", "2", "--save-dir", folder / "checkpoints",
             "--save-interval-updates", "4", "--log-format", "none", "--num-workers", "0",
             "--disable-validation")  # fmt: skip
    return folder
