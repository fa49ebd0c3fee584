"""Checkpoints of models with random weights, written the way fairseq's trainer writes them."""

import copy
import io
import os
import random
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.models import randomise, spread_omegas, trainer_state
from tests.support.words import WORDS, sentence

#: Runs a fairseq program in a Python that has no admin_nmt: -S leaves out the .pth files that make
#: it importable and hook it into fairseq, and None in sys.modules makes its import fail.
WITHOUT_US = """
import runpy, site, sys
site.sethelper(); site.setquit()  # fairseq uses `help`, which -S leaves out too
sys.path += {site!r}
sys.modules["admin_nmt"] = sys.modules["admin_nmt_autoload"] = None
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""


def run_without_us(module: str, *args: object) -> subprocess.CompletedProcess[str]:
    """`python -m module args` where admin_nmt is not installed; it must succeed."""
    code = WITHOUT_US.format(
        site=[sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")], module=module
    )
    result = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code, *map(str, args)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    """`save(model, cfg, path, **entries)`: a checkpoint of `model`, configured by `cfg`."""

    def write(model: Any, cfg: Any, path: Path, **entries: Any) -> Path:
        torch.save(trainer_state(model, cfg, **entries), path)
        return path

    return write


@pytest.fixture(scope="session")
def make(
    parse: Callable[..., Any], task: Any, save: Callable[..., Path]
) -> Callable[..., tuple[Any, Path]]:
    """`make(path, *options, seed=1)`: a random model in evaluation mode and its checkpoint."""
    parse_once = cache(parse)

    def make_checkpoint(
        path: Path, *options: str, seed: int = 1, **entries: Any
    ) -> tuple[Any, Path]:
        torch.manual_seed(seed)
        cfg = parse_once(*options)
        model = task.build_model(copy.deepcopy(cfg.model)).eval()
        spread_omegas(model, randomise(model, seed))
        return model, save(model, cfg, path, **entries)

    return make_checkpoint


@pytest.fixture(scope="session")
def prepared(program: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a real `admin-nmt prepare`: German to English word by word, joined dictionary."""
    folder = tmp_path_factory.mktemp("words")
    rng = random.Random(3)
    for split, count in (("train", 2000), ("valid", 20), ("test", 20)):
        pairs = [sentence(rng) for _ in range(count)]
        german = "".join(" ".join(words) + ".\n" for words in pairs)
        english = "".join(" ".join(WORDS[word] for word in words) + ".\n" for words in pairs)
        (folder / f"{split}.de").write_text(german, encoding="utf-8")
        (folder / f"{split}.en").write_text(english, encoding="utf-8")
    program(
        "admin-nmt", "prepare", "custom", "--corpus", folder, "--source-lang", "de",
        "--target-lang", "en", "--bpe-tokens", 60, "--joined-dictionary", "--output",
        folder / "prepared",
    )  # fmt: skip
    return folder / "prepared"


@pytest.fixture(scope="session")
def word_model(
    prepared: Path, program: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint of ADMIN trained on `prepared` by a real process, with trained omegas.

    Long enough, and with a learning rate that falls to 0, to learn the words on any processor.
    """
    folder = tmp_path_factory.mktemp("word-model")
    program(
        "fairseq-train", prepared / "data-bin", "-s", "de", "-t", "en", "--arch", "admin_transformer_tiny", "--cpu",
        "--max-tokens", 600, "--optimizer", "radam", "--lr", 5e-3, "--lr-scheduler", "polynomial_decay",
        "--warmup-updates", 50, "--total-num-update", 700, "--max-update", 700,
        "--share-all-embeddings", "--dropout", 0, "--save-dir", folder, "--no-epoch-checkpoints",
        "--disable-validation", "--max-source-positions", 64, "--max-target-positions", 64,
    )  # fmt: skip
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="session")
def exported(word_model: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `admin-nmt export` makes of `word_model`, in float32."""
    from admin_nmt.cli.main import main

    folder = tmp_path_factory.mktemp("exported") / "model"
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["export", str(word_model), str(prepared), "--output", str(folder)]) == 0
    assert "8 translated exactly as by fairseq" in said.getvalue()
    return folder
