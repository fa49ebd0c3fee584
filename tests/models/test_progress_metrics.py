"""Our figures reach what fairseq shows: its log, TensorBoard's event files, Weights & Biases."""

import gc
import json
import struct
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.logging import metrics
from tensorboardX.proto.event_pb2 import Event

from admin_nmt.analysis.training_log import read_log
from admin_nmt.models.progress_metrics import kept_heads, omega_range

pytestmark = pytest.mark.xdist_group("progress_metrics")  # one worker trains
OMEGAS = {f"{stack}_omega_{end}" for stack in ("encoder", "decoder") for end in ("min", "max")}
#: Keeps what it is given, as the real one does offline, without network or account.
WANDB = """
import json, os
def _keep(*content):
    with open(os.environ["KEPT"], "a") as stream:
        stream.write(json.dumps(content) + "\\n")
class config:
    update = staticmethod(lambda content: _keep("config", sorted(content)))
def init(project, **options):
    _keep("init", project)
def log(values, step):
    _keep("log", values, step)
"""


def events(folder: Path) -> dict[str, dict[int, float]]:
    """Tag -> step -> value of the event file in a folder: records of length, its checksum, event,
    its checksum."""
    found: dict[str, dict[int, float]] = {}
    for path in folder.glob("events*"):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += length + 16
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


@pytest.fixture(scope="module")
def trained(
    data_bin: Path, tmp_path_factory: pytest.TempPathFactory, program: Callable[..., Any]
) -> Path:
    """Four updates of R-Drop and ADMIN with a masked head, shown in every way."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "modules").mkdir()
    (folder / "modules" / "wandb.py").write_text(WANDB)
    (folder / "modules" / "tensorboard.py").write_text("raise ImportError\n")
    program(
        "fairseq-train", data_bin, "--arch", "admin_transformer_tiny", "--share-all-embeddings", "--cpu",
        "--max-tokens", 300, "--optimizer", "radam", "--lr", "0.01", "--max-update", 4,
        "--criterion", "label_smoothed_cross_entropy_rdrop", "--label-smoothing", "0.1",
        "--head-mask", "E:1:2,D:2:1", "--save-dir", folder / "run", "--num-workers", 0,
        "--no-epoch-checkpoints", "--disable-validation", "--log-format", "json", "--log-interval", 2,
        "--log-file", folder / "train.log", "--tensorboard-logdir", folder / "tensorboard",
        "--wandb-project", "ours",
        PYTHONPATH=str(folder / "modules"), KEPT=str(folder / "wandb.jsonl"),
    )  # fmt: skip
    return folder


def test_tensorboard_shows_them_as_the_checkpoint_has_them(trained: Path) -> None:
    shown = events(trained / "tensorboard" / "train_inner")
    assert OMEGAS | {"rdrop_kl", "kept_heads", "loss", "gnorm"} <= set(shown)
    assert all(list(shown[name]) == [2, 4] for name in (*OMEGAS, "rdrop_kl", "kept_heads"))
    weights = torch.load(trained / "run" / "checkpoint_last.pt", weights_only=True)["model"]
    for stack in ("encoder", "decoder"):
        omegas = torch.cat([w for n, w in weights.items() if n.startswith(stack) and "omega" in n])
        assert shown[f"{stack}_omega_min"][4] == pytest.approx(omegas.min().item(), rel=1e-6)
        assert shown[f"{stack}_omega_max"][4] == pytest.approx(omegas.max().item(), rel=1e-6)
    assert shown["encoder_omega_max"][2] != shown["encoder_omega_max"][4]
    assert shown["kept_heads"][4] == 2 * 3 * 4 - 2
    assert 0 < shown["rdrop_kl"][4] < 2


def test_weights_and_biases_gets_them(trained: Path) -> None:
    kept = [json.loads(line) for line in (trained / "wandb.jsonl").read_text().splitlines()]
    assert ["init", "ours"] in kept and any(entry[0] == "config" for entry in kept)
    logged = {
        (name, step)
        for _, *entry in kept
        if len(entry) == 2
        for name in entry[0]
        for step in entry[1:]
    }
    for name in (*OMEGAS, "rdrop_kl", "kept_heads"):
        assert {(f"train_inner/{name}", 2), (f"train_inner/{name}", 4)} <= logged


def test_the_log_has_their_curves(trained: Path) -> None:
    log = read_log(trained / "train.log")
    curves = log.curves
    assert log.settings["arch"] == "admin_transformer_tiny" and log.settings["lr"] == [0.01]
    assert log.settings["criterion"] == "label_smoothed_cross_entropy_rdrop"
    shown = events(trained / "tensorboard" / "train_inner")
    for name in (*OMEGAS, "rdrop_kl"):
        assert curves[name].updates == [2, 4]
        assert curves[name].values[-1] == pytest.approx(shown[name][4], rel=1e-3)


def test_models_without_omegas_show_none_and_are_not_kept_alive(build: Callable[..., Any]) -> None:
    model = build("--init-type", "default").train()
    assert all(number != number for number in omega_range(model, "encoder"))
    assert kept_heads(model) == 2 * 3 * 4
    with metrics.aggregate(new_root=True) as shown:
        model.set_num_updates(1)
    assert not shown.get_smoothed_values()
    other = build().train()
    with metrics.aggregate(new_root=True) as shown:
        other.eval().set_num_updates(1)
        assert not shown.get_smoothed_values()
        other.train().set_num_updates(1)
    assert shown.get_smoothed_values() == {
        f"{stack}_omega_{end}": value
        for stack in ("encoder", "decoder")
        for end, value in zip(("min", "max"), omega_range(other, stack), strict=True)
    }
    alive = weakref.ref(other)
    del other
    gc.collect()
    assert alive() is None
    assert all(value != value for value in shown.get_smoothed_values().values())
