"""Every benchmark runs as its README says, with `--smoke`, in this process."""

import argparse
import importlib
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.cli.main import main
from admin_nmt.export import fold

pytestmark = pytest.mark.xdist_group("benchmarks")  # one worker prepares their data
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Benchmark -> its command in benchmarks/README.md.
COMMANDS = dict(
    re.findall(
        r"^\| `(\w+)` \|.*\| `python (.*)` \|$",
        (BENCHMARKS / "README.md").read_text(encoding="utf-8"),
        re.M,
    )
)
#: What the tables must show: a heading, and how many figures at least.
TABLES = {
    "train_step": ("fairseq s", 6),
    "update": ("one flat copy ms", 6),
    "bpe_dropout": ("drawing, first epoch", 2 * 4 + 4),
    "rdrop": ("training step", 14 + 10),
    "residual_attention": ("score tensors below naive", 7 + 5),
    "cpu_bf16": ("bfloat16, s", 6),
    "pruned_speed": ("pruned s", 18),
    "translate_speed": ("sentences/s", 4 * 3 + 3 * 2),
    "prepare_memory": ("learn_bpe, MiB", 6),
    "prepare_speed": ("ours, lines/s", 4 * 2 + 6 * 3),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of `admin-nmt prepare` on 60 pairs."""
    folder = tmp_path_factory.mktemp("prepared")
    words = {"de": ["ein", "Haus", "steht", "dort"], "en": ["a", "house", "stands", "there"]}
    for name, size in (("train", 60), ("valid", 4), ("test", 4)):
        for language, choices in words.items():
            lines = [" ".join(choices[(i + j) % 4] for j in range(2 + i % 3)) for i in range(size)]
            (folder / f"{name}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = "prepare custom --source-lang de --target-lang en --bpe-tokens 10 --joined-dictionary"
    options = ["--corpus", str(folder), "--output", str(folder / "out"), "--workers", "1"]
    assert main([*command.split(), *options]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def untrained(prepared: Path) -> Path:
    """An `admin_transformer` with random weights as `fairseq-train` leaves it after no update."""
    from fairseq import checkpoint_utils, options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from omegaconf import OmegaConf

    sizes = "--arch admin_transformer_tiny --share-all-embeddings --max-target-positions 64"
    args = [str(prepared / "data-bin"), "--cpu", "--optimizer", "adam", *sizes.split()]
    cfg = convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), args)
    )
    torch.manual_seed(1)
    model: Any = tasks.setup_task(cfg.task).build_model(cfg.model)
    state = {
        "args": None,
        "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "model": model.state_dict(),
        "optimizer_history": [{"criterion_name": "", "optimizer_name": "", "num_updates": 0,
                               "lr_scheduler_state": {}}],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "task_state": {},
    }  # fmt: skip
    path = prepared.parent / "checkpoint.pt"
    checkpoint_utils.torch_persistent_save(state, str(path))
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`run(name, *words)`: the script with this command line."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    # Put back afterwards, whatever the script sets.
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1000")
    before, threads = logging.root.manager.disable, torch.get_num_threads()

    def run_script(name: str, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / f"{name}.py"), *words])
        importlib.import_module(name).main()

    yield run_script
    logging.disable(before)
    torch.set_num_threads(threads)
    for name in {path.stem for path in BENCHMARKS.glob("*.py")}:
        sys.modules.pop(name, None)


def test_the_readme_lists_every_benchmark() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("*.py")} - {"common"}
    assert COMMANDS.keys() == scripts
    # The others have tests of their own: the last one below, and those of tests/train.
    assert scripts == TABLES.keys() | {"random_kills", "rank_faults", "widen_model"}


@pytest.mark.long
@pytest.mark.parametrize("name", TABLES)
def test_smoke(
    name: str,
    run: Callable[..., None],
    request: Any,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    script, *words = COMMANDS[name].split()
    assert script == f"benchmarks/{name}.py"
    if {"DATA", "PREPARED"} & set(words):
        prepared = request.getfixturevalue("prepared")
        given = {"DATA": prepared / "data-bin", "PREPARED": prepared}
        if "CKPT" in words:
            given["CKPT"] = request.getfixturevalue("untrained")
        words = [str(given.get(word, word)) for word in words]
    capsys.readouterr()
    run(name, *words, "--smoke", "--json", str(tmp_path / "kept.json"))
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept["command"].startswith(f"benchmarks/{name}.py ") and "torch" in kept["machine"]
    values = [value for table in kept["tables"] for row in table["rows"] for value in row.values()]
    said = capsys.readouterr().out
    heading, count = TABLES[name]
    assert heading in said
    figures = [float(text) for text in re.findall(r"(?<=[\s|])\d+\.?\d*(?=\s|$)", said)]
    assert len(figures) >= count, said
    assert all(math.isfinite(figure) for figure in figures) and "nan" not in said, said
    assert sum(isinstance(value, int | float) for value in values) >= count


def test_the_widened_model_is_twice_as_wide(
    run: Callable[..., None], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folded, _ = fold(Checkpoint.open(checkpoint("--share-all-embeddings")))
    folded.save(tmp_path / "folded.pt")
    words = COMMANDS["widen_model"].replace("FOLDED", str(tmp_path / "folded.pt")).split()[1:]
    words[-1] = str(tmp_path / words[-1])
    run("widen_model", *words, "--smoke")
    wide = Checkpoint.open(tmp_path / "wide.pt")
    for name in ("encoder.embed_tokens.weight", "decoder.layers.0.fc1.weight"):
        rows, columns = folded.weights[name].shape
        assert wide.weights[name].shape == (rows * (2 if "fc1" in name else 1), 2 * columns)
    assert any(name.endswith("omega") for name in wide.weights)
    with pytest.raises(SystemExit):  # it has no tables
        run("widen_model", *words, "--json", str(tmp_path / "kept.json"))


def test_training_steps_of_rdrop_are_those_of_device_and_type(
    data_bin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both its tables are; `meta` stands for a GPU."""
    import rdrop

    found = []

    def training_step(model: Any, criterion: Any, optimizer: Any, samples: list) -> None:
        tensors = [next(model.parameters()), samples[0]["target"]]
        found.append([(tensor.device.type, tensor.dtype) for tensor in tensors])

    monkeypatch.setattr(rdrop, "training_step", training_step)
    monkeypatch.setattr(rdrop, "interleaved", lambda steps, *_: [[1.0] for _ in steps])
    args = argparse.Namespace(
        data=str(data_bin), max_tokens=100, batches=1, device="meta", dtype="bfloat16"
    )
    assert len(rdrop.measure_steps(args, (1, 1, 16))) == 2
    assert found == 6 * [[("meta", torch.bfloat16), ("meta", torch.int64)]]


def test_rdrop_refuses_a_device_that_it_cannot_measure(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("rdrop", "data", "--device", "cuda:1")
    assert "--device: invalid choice: 'cuda:1'" in capsys.readouterr().err
