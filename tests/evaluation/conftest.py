"""Shared: small parallel text, and a module in COMET's place."""

import random
import sys
from types import ModuleType

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


@pytest.fixture(scope="session")
def two_references(text_files, tmp_path_factory):
    """The reference and a second one: the first half of its lines equal the first system's."""
    hypotheses, _, reference = text_files
    second = tmp_path_factory.mktemp("second") / "ref2.txt"
    lines = hypotheses.read_text(encoding="utf-8").splitlines()[:20]
    lines += reference.read_text(encoding="utf-8").splitlines()[:-21:-1]
    second.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [reference, second]


class StandIn:
    """A model as `comet.load_from_checkpoint` gives one: the share of source and reference words
    that the translation has."""

    def predict(self, samples, batch_size=16, gpus=1, progress_bar=True):
        sys.modules["comet"].shown.append(progress_bar)

        def score(sample):
            wanted = [*sample["src"].split(), *sample["ref"].split()]
            return sum(word in sample["mt"].split() for word in wanted) / len(wanted)

        scores = [score(sample) for sample in samples]
        return {"scores": scores, "system_score": sum(scores) / len(scores)}


@pytest.fixture
def comet_model(monkeypatch, tmp_path):
    """The folder of a model that a module in COMET's place loads; nothing may look beyond files."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(variable, "0")  # so that it is unset again at the end
        monkeypatch.delenv(variable)
    folder = tmp_path / "small-model"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "hparams.yaml").touch()
    (folder / "checkpoints" / "model.ckpt").write_text("weights")
    module = ModuleType("comet")
    module.shown = []  # whether each prediction was asked to show a progress bar

    def load_from_checkpoint(checkpoint_path, local_files_only=False):
        assert local_files_only and checkpoint_path == str(folder / "checkpoints" / "model.ckpt")
        return StandIn()

    module.load_from_checkpoint = load_from_checkpoint
    monkeypatch.setitem(sys.modules, "comet", module)
    return folder
