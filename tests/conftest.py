"""What all tests share: a tiny parallel corpus, binarised once, and models over it."""

import io
import logging
import random
import subprocess
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.clean_tree import pytest_sessionfinish, pytest_sessionstart  # noqa: F401
from tests.support.models import randomise, trainer_state
from tests.support.programs import run_program, run_tool
from tests.support.words import WORDS, sentence

TINY = [
    "--arch",
    "admin_transformer_tiny",
    "--cpu",
    "--max-tokens",
    "300",
    "--optimizer",
    "radam",
    "--lr",
    "1e-3",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--device`."""
    parser.addoption(
        "--device", choices=("cpu", "cuda"), default="cpu",
        help="where tests with the fixture `device` compute (default: cpu)",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a GPU that is not there before any test runs."""
    if config.getoption("device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: PyTorch finds no GPU here")


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """Where to compute: `cpu`, or `cuda` with `--device cuda`, in float32 where that is asked for."""
    torch.backends.cudnn.allow_tf32 = False
    return str(pytestconfig.getoption("device"))


#: Fixtures that train for long: the tests that need one run in one worker, which trains once.
TRAINED = ("word_model", "tiny_run", "raw_model")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of each of `TRAINED` together, and start those marked `slow` first: at the end of
    a run one worker would wait for the other's. xdist itself starts groups before single tests."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        for name in TRAINED:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and xdist runs several processes."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def compositions() -> None:
    """fairseq's options become a configuration in 0.05 s instead of 0.5 s."""
    from fairseq.dataclass import utils

    from tests.support.compositions import remembering

    utils.compose = remembering(utils.compose)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Studies and the GPU check silence logs for their process, which here is that of all tests."""
    before = logging.root.manager.disable
    yield
    logging.disable(before)


@pytest.fixture(scope="session")
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_program`, for tests."""
    return run_program


def write_corpus(folder: Path) -> None:
    """Reversal of random sentences over 40 words: train 200, valid and test 20 pairs; `train.align`
    says which words belong together."""
    rng = random.Random(7)
    for split, lines in (("train", 200), ("valid", 20), ("test", 20)):
        source = [[f"w{rng.randrange(40)}" for _ in range(rng.randint(2, 9))] for _ in range(lines)]
        for lang, sentences in (("de", source), ("en", [line[::-1] for line in source])):
            text = "\n".join(" ".join(words) for words in sentences) + "\n"
            (folder / f"{split}.{lang}").write_text(text)
        if split == "train":
            links = [[f"{len(words) - 1 - i}-{i}" for i in range(len(words))] for words in source]
            (folder / "train.align").write_text("\n".join(map(" ".join, links)) + "\n")


@pytest.fixture(scope="session")
def data_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder made by `fairseq-preprocess` with a joined dictionary, languages de and en, and word
    alignments of the training set."""
    from fairseq import options
    from fairseq_cli import preprocess

    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    splits = [f"--{name}pref={folder / name}" for name in ("train", "valid", "test")]
    given = ["-s", "de", "-t", "en", "--joined-dictionary", *splits, "--align-suffix", "align",
             "--workers", "1", "--destdir", str(folder / "bin")]  # fmt: skip
    handlers = list(preprocess.logger.handlers)
    preprocess.main(options.get_preprocessing_parser().parse_args(given))
    for handler in set(preprocess.logger.handlers) - set(handlers):  # its log file
        preprocess.logger.removeHandler(handler)
        handler.close()
    return folder / "bin"


@pytest.fixture(scope="session")
def parse(data_bin: Path) -> Callable[..., Any]:
    """`parse(*options)`: fairseq's configuration for `fairseq-train DATA *options`."""

    def parse_options(*extra: str) -> Any:
        from fairseq import options
        from fairseq.dataclass.utils import convert_namespace_to_omegaconf

        import admin_nmt  # noqa: F401

        args = options.parse_args_and_arch(
            options.get_training_parser(), [str(data_bin), *TINY, *extra]
        )
        return convert_namespace_to_omegaconf(args)

    return parse_options


@pytest.fixture(scope="session")
def task(parse: Callable[..., Any]) -> Any:
    """A translation task with its training set loaded."""
    from fairseq import tasks

    task = tasks.setup_task(parse().task)
    task.load_dataset("train")
    return task


@pytest.fixture(scope="session")
def build(parse: Callable[..., Any], task: Any) -> Callable[..., Any]:
    """`build(*options, seed=1)`: a model of the tiny architecture, changed by `options`."""

    def build_model(*extra: str, seed: int = 1) -> Any:
        torch.manual_seed(seed)
        cfg: Namespace = parse(*extra).model
        return task.build_model(cfg)

    return build_model


@pytest.fixture(scope="session")
def checkpoint(
    parse: Callable[..., Any], task: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`checkpoint(*options, seed=1)`: a file of a model with random numbers everywhere."""

    def save(*options: str, seed: int = 1) -> Path:
        torch.manual_seed(seed)
        cfg = parse(*options)
        model = task.build_model(cfg.model)
        randomise(model, seed, also=("omega", "alpha"))
        path = tmp_path_factory.mktemp("checkpoint") / "model.pt"
        optimizer = {"state": torch.zeros(5)}
        torch.save(trainer_state(model, cfg, last_optimizer_state=optimizer), path)
        return path

    return save


@pytest.fixture(scope="session")
def batch(task: Any) -> dict[str, Any]:
    """One training batch with padding on both sides."""
    dataset = task.dataset("train")
    sample = dataset.collater([dataset[index] for index in range(16)])
    pad = task.source_dictionary.pad()
    assert (sample["net_input"]["src_tokens"] == pad).any()
    assert (sample["net_input"]["prev_output_tokens"] == pad).any()
    return sample


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data-bin` (de-en, BPE marks), `raw.en` and two epochs of a tiny model in
    `checkpoints`: `checkpoint1.pt`, `checkpoint2.pt` and `checkpoint_E_U.pt` every 4 updates."""
    from tests.support.training import train_here

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
    train_here(folder / "data-bin", "--arch", "transformer", *sizes, "--cpu",
               "--share-decoder-input-output-embed", "--optimizer", "adam", "--lr", "0.01",
               "--batch-size", "8", "--max-epoch", "2", "--save-dir", folder / "checkpoints",
               "--save-interval-updates", "4", "--log-format", "none", "--num-workers", "0",
               "--disable-validation")  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of `admin-nmt prepare`: German to English word by word, joined dictionary."""
    from admin_nmt.cli.main import main

    folder = tmp_path_factory.mktemp("words")
    rng = random.Random(3)
    for split, count in (("train", 2000), ("valid", 20), ("test", 20)):
        pairs = [sentence(rng) for _ in range(count)]
        german = "".join(" ".join(words) + ".\n" for words in pairs)
        english = "".join(" ".join(WORDS[word] for word in words) + ".\n" for words in pairs)
        (folder / f"{split}.de").write_text(german, encoding="utf-8")
        (folder / f"{split}.en").write_text(english, encoding="utf-8")
    command = "prepare custom --source-lang de --target-lang en --bpe-tokens 60 --joined-dictionary"
    given = ["--corpus", str(folder), "--output", str(folder / "prepared")]
    with redirect_stdout(io.StringIO()):
        assert main([*command.split(), *given]) == 0
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
        "--save-interval", 1000, "--disable-validation", "--max-source-positions", 64, "--max-target-positions", 64,
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
