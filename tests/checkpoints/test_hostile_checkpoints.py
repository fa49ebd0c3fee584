"""Forged and malformed checkpoints: refused in one line by every reader, nothing is written."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.cli.main import main
from admin_nmt.errors import UserError
from admin_nmt.host import patches

RECONSTRUCT = np.array([0]).__reduce__()[0]
SCALAR = np.float64(0).__reduce__()[0]
EMPTY = (np.ndarray, (0,), b"b")
FLOAT = np.dtype("f8")


class Forged:
    """Pickled as a call (and a state) of our choice."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


FORGED = {
    "object type": Forged(np.dtype, ("O", False, True)),
    "text type": np.array(["abc"]),
    "time type": np.array(["2020-01-01"], "M8[D]"),
    "object array": np.array([None]),
    "structured array": np.zeros(2, [("a", "i4"), ("b", "f8")]),
    "structured scalar": np.zeros(2, [("a", "i4")])[0],
    "fields by state": Forged(
        np.dtype, ("f8", False, True), (3, "<", None, ("a",), {"a": (FLOAT, 0)}, 8, 1, 0)
    ),
    "damaged state": Forged(np.dtype, ("f8", False, True), (3, "<")),
    "huge allocation": Forged(np.ndarray, ((10**15,),)),
    "shape without data": Forged(
        RECONSTRUCT, EMPTY, (1, (10**9,), FLOAT, False, b"\0" * 8)
    ),
    "negative shape": Forged(RECONSTRUCT, EMPTY, (1, (-1,), FLOAT, False, b"")),
    "list of objects as data": Forged(RECONSTRUCT, EMPTY, (1, (1,), FLOAT, False, [object])),
    "state of three": Forged(RECONSTRUCT, EMPTY, ((1,), FLOAT, b"\0" * 8)),
    "short scalar": Forged(SCALAR, (FLOAT, b"\0")),
    "scalar of no type": Forged(SCALAR, ("f8", b"\0" * 8)),
}  # fmt: skip
WEIGHT = "encoder.layers.0.fc1.weight"
MALFORMED: dict[str, tuple[Callable[[dict], Any], str]] = {
    "no entries": (lambda state: state["model"].clear(), "no entries"),
    "empty tensor": (lambda state: state["model"].update({WEIGHT: torch.zeros(0, 3)}), WEIGHT),
    "list": (lambda state: state["model"].update({WEIGHT: [1.0]}), WEIGHT),
    "None": (lambda state: state["model"].update({WEIGHT: None}), WEIGHT),
    "string": (lambda state: state["model"].update({WEIGHT: "x"}), WEIGHT),
    "sparse": (lambda state: state["model"].update({WEIGHT: torch.eye(3).to_sparse()}), WEIGHT),
    "model is a list": (lambda state: state.update(model=[1]), "no model"),
    "no model": (lambda state: state.pop("model"), "no model"),
}  # fmt: skip
SETTINGS: dict[str, tuple[Any, str]] = {
    "cfg is a list": ({"cfg": [1]}, "cfg"),
    "model settings are text": ({"cfg": {"model": "x", "task": {}}}, "cfg.model"),
    "args is text": ({"cfg": None, "args": "x"}, "args"),
}


@pytest.fixture(scope="module")
def state(parse: Callable[..., Any], task: Any) -> dict[str, Any]:
    """A sound checkpoint of a tiny model."""
    from omegaconf import OmegaConf

    cfg = parse()
    config = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    return {"args": None, "cfg": config, "model": task.build_model(cfg.model).state_dict()}


def commands(path: Path, data: Path, output: Path) -> list[list[str]]:
    """Every command of `admin-nmt` that reads a checkpoint."""
    model = [str(data), "--path", str(path), "--cpu"]
    return [
        ["average", "--inputs", str(path), "--output", str(output)],
        ["fold", str(path), "--output", str(output)],
        ["export", str(path), str(data), "--output", str(output)],
        ["translate", str(path), "--data", str(data), "--output", str(output)],
        ["evaluate", *model, "--output", str(output)],
        ["importance", *model, "--output", str(output)],
        ["ablate", *model, "--output", str(output)],
        ["prune", *model, "--fraction", "0.5", "--output", str(output)],
        ["prune-sweep", *model, "--output", str(output)],
    ]


def refused_everywhere(path: Path, data: Path, folder: Path, capsys: Any, named: str) -> None:
    """One line that names the file and what is wrong, exit code 1, no output."""
    for arguments in commands(path, data, folder / "output"):
        assert main(arguments) == 1, arguments
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines() if " | INFO | " not in line]
        assert len(lines) == 1, (arguments, said.err)
        assert str(path) in lines[0], arguments
        assert named in lines[0], arguments
        assert not (folder / "output").exists(), arguments
    assert [entry.name for entry in folder.iterdir()] == [path.name]


def fairseq_refuses(path: Path, named: str) -> None:
    """The one reader of fairseq's programs gives the same kind of line."""
    from fairseq import checkpoint_utils

    import admin_nmt.registration  # noqa: F401

    with pytest.raises(UserError) as caught:
        checkpoint_utils.load_checkpoint_to_cpu(str(path))
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", FORGED.values(), ids=FORGED)
def test_forged_numbers_are_refused(
    state: dict[str, Any], data_bin: Path, tmp_path: Path, capsys: Any, value: Any
) -> None:
    path = tmp_path / "forged.pt"
    torch.save(state | {"extra_state": {"metrics": [value]}}, path)
    fairseq_refuses(path, "refusing checkpoint")
    refused_everywhere(path, data_bin, tmp_path, capsys, "refusing checkpoint")


@pytest.mark.parametrize(("change", "named"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_models_are_refused(
    state: dict[str, Any],
    data_bin: Path,
    tmp_path: Path,
    capsys: Any,
    change: Callable[[dict], Any],
    named: str,
) -> None:
    path = tmp_path / "malformed.pt"
    changed = state | {"model": dict(state["model"])}
    change(changed)
    torch.save(changed, path)
    fairseq_refuses(path, named)
    refused_everywhere(path, data_bin, tmp_path, capsys, named)


@pytest.mark.parametrize(("entries", "named"), SETTINGS.values(), ids=SETTINGS)
def test_malformed_settings_are_refused(
    state: dict[str, Any], data_bin: Path, tmp_path: Path, capsys: Any, entries: Any, named: str
) -> None:
    path = tmp_path / "malformed.pt"
    torch.save(state | entries, path)
    refused_everywhere(path, data_bin, tmp_path, capsys, named)


def test_plain_numbers_come_back_as_they_were_and_are_written_as_before(
    state: dict[str, Any], tmp_path: Path
) -> None:
    patches.apply()
    values = [
        np.float64(1.5), np.int32(-3), np.bool_(True), np.array([1, 2, 3]),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array([], "f4"), np.array(2.5, ">f8"),
    ]  # fmt: skip
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    torch.save(state | {"extra_state": values, "args": Namespace(a=1)}, first)
    found = load_checkpoint_file(first)
    torch.save(found, second)
    for loaded in (found["extra_state"], load_checkpoint_file(second)["extra_state"]):
        for value, original in zip(loaded, values, strict=True):
            assert value.dtype == original.dtype.newbyteorder("=")  # numpy makes it native
            np.testing.assert_array_equal(value, original)
    # Nothing of ours in what is written: a stock fairseq reads it.
    assert b"admin_nmt" not in second.read_bytes().replace(b"admin_nmt.criterions", b"")
