"""Models that mask heads by themselves, and models with few heads or none, in every command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.cli.main import main
from admin_nmt.errors import UsageError, UserError
from admin_nmt.host import heads
from admin_nmt.models.head_files import read_heads

ONE_LAYER = ("--encoder-layers", "1", "--decoder-layers", "1")


@pytest.fixture
def run(data_bin: Path) -> Callable[..., int]:
    """`run(command, *options)`: exit code of an `admin-nmt` command on the data of the suite."""
    return lambda command, *options: main([command, str(data_bin), "--cpu", *map(str, options)])


def test_masks_may_be_longer_than_a_file_name(tmp_path: Path) -> None:
    names = [f"E:{layer}:{head}" for layer in range(1, 11) for head in range(1, 9)]
    assert heads.read_mask(",".join(names)) == ",".join(names)
    path = tmp_path / "mask.json"
    path.write_text(json.dumps({"format": "admin_nmt heads", "removed": names}))
    assert heads.read_mask(str(path)) == ",".join(names)
    with pytest.raises(UsageError, match="'E:1:x' is not a head"):
        heads.read_mask(",".join([*names, "E:1:x"]))
    with pytest.raises(UserError, match=r"file not found: nowhere/mask\.json"):
        heads.read_mask("nowhere/mask.json")


def test_lists_of_michel_et_al_are_read(tmp_path: Path) -> None:
    path = tmp_path / "heads.txt"
    path.write_text("E:1:2 E:2:1,3\n# decoder\nA:1:4\tD:2:1  # last\n")
    expected = ["E:1:2", "E:2:1", "E:2:3", "A:1:4", "D:2:1"]
    assert list(map(str, read_heads(str(path), "--heads"))) == expected
    assert heads.read_mask(str(path)) == ",".join(expected)
    for content, named in (
        (b"E:1:2 X:1:1", "heads.txt: 'X:1:1' is not a head"),
        (b"E:1:2 E:1:2", "heads.txt: head E:1:2 is named twice"),
        (b"# nothing", "heads.txt names no heads"),
        (b"\xff\xfe", "heads.txt is not a text file"),
        (b'{"format": "admin_nmt heads"}', "heads.txt names no heads"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=named.replace(".", r"\.")):
            read_heads(str(path), "--heads")


def test_a_list_in_a_file_prunes(
    run: Callable[..., int], checkpoint: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    path, names = checkpoint(*ONE_LAYER), tmp_path / "heads.txt"
    names.write_text("E:1:2 A:1:1\n")
    output = tmp_path / "pruned.pt"
    assert run("prune", "--path", path, "--heads", names, "--output", output) == 0
    assert "heads per layer: E:3 A:3 D:4" in capsys.readouterr().out
    assert (
        run("prune", "--path", path, "--heads", tmp_path / "no.txt", "--output", tmp_path / "no.pt")
        == 1
    )
    assert "--heads: file not found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "unused"),
    [("A:0,0", {"E"}), ("A:0,0 D:0,0", {"E"}), ("E:0,0 A:0,0 D:0,0", set())],
)
def test_heads_that_nothing_reads_have_no_importance(
    run: Callable[..., int], checkpoint: Callable[..., Path], tmp_path: Path, layout: str,
    unused: set[str],
) -> None:  # fmt: skip
    """Without encoder-decoder attention the loss does not depend on the encoder."""
    path = checkpoint("--encoder-layers", "2", "--heads-per-layer", layout)
    scores = tmp_path / "heads.json"
    assert run("importance", "--path", path, "--max-batches", "2", "--output", scores) == 0
    (found,) = json.loads(scores.read_text())["measurements"]
    for kind, layers in found["scores"].items():
        for score in (score for layer in layers for score in layer):
            assert (score == 0) == (kind in unused)


def test_what_is_read_is_never_overwritten(
    run: Callable[..., int], checkpoint: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    path, scores = checkpoint(*ONE_LAYER), tmp_path / "heads.json"
    assert run("importance", "--path", path, "--max-batches", "1", "--output", scores) == 0
    heads = tmp_path / "heads.txt"
    heads.write_text("E:1:1")
    before = path.read_bytes(), scores.read_bytes()
    capsys.readouterr()
    prune = ("prune", "--path", path, "--fraction", "0.5")
    listed = ("prune", "--path", path, "--heads", heads, "--force")
    for command in (
        ("importance", "--path", path, "--output", path),
        (*prune, "--random", "--output", tmp_path / "out.pt", "--list", path),
        (*prune, "--importance", scores, "--output", tmp_path / "out.pt", "--list", scores),
        (*prune, "--importance", scores, "--output", scores),
        (*listed, "--output", tmp_path / "out.pt", "--list", heads),
        (*listed, "--output", heads),
    ):
        assert run(*command) == 2
        assert "is an input" in capsys.readouterr().err
    assert (path.read_bytes(), scores.read_bytes()) == before and heads.read_text() == "E:1:1"
    assert not (tmp_path / "out.pt").exists()
    importance = ("importance", "--path", "missing.pt", "--output", tmp_path / "new.json")
    assert run(*importance, "--plot", "x.gif") == 2
    assert "--plot x.gif: give a name that ends in" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--head-mask", "E:1:3"), ("--residual-attention", "all")])
@pytest.mark.parametrize("first", [0, 1])
def test_models_of_other_attention_are_not_averaged(
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    capsys: Any,
    first: int,
    option: tuple[str, str],
) -> None:
    paths = [checkpoint(*ONE_LAYER), checkpoint(*ONE_LAYER, *option)]
    inputs = [str(paths[first]), str(paths[1 - first])]
    assert main(["average", "--inputs", *inputs, "--output", str(tmp_path / "out.pt")]) == 1
    assert option[0].strip("-").replace("-", "_") in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize(("options", "expected"), [((), "E:1:3"), (("--head-mask", "D:1:1"), "D:1:1"),
                                                   (("--head-mask", ""), "")])  # fmt: skip
def test_fine_tuning_keeps_the_mask_unless_another_is_given(
    checkpoint: Callable[..., Path], parse: Callable[..., Any], task: Any, options: tuple[str, ...],
    expected: str,
) -> None:  # fmt: skip
    path = checkpoint(*ONE_LAYER, "--head-mask", "E:1:3")
    model = task.build_model(parse(*ONE_LAYER, "--finetune-from-model", str(path), *options).model)
    assert (model.cfg.head_mask or "") == expected


def test_a_sweep_names_the_option_of_a_subset_that_is_not_there(
    run: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    """Before a model is read."""
    sweep = ("prune-sweep", "--path", "missing.pt", "--output", tmp_path / "out")
    assert run(*sweep, "--subset", "dev") == 1
    assert "has no subset dev; --subset can be one of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [("--kinds", "A"), ("--experiments", "all-but-one")],
)
def test_nothing_to_ablate_is_said_before_translating(
    run: Callable[..., int], checkpoint: Callable[..., Path], tmp_path: Path, capsys: Any,
    options: tuple[str, ...],
) -> None:  # fmt: skip
    path = checkpoint(*ONE_LAYER, "--heads-per-layer", "E:1 A:0 D:1")
    assert run("ablate", "--path", path, "--output", tmp_path / "out", *options) == 2
    assert "no heads to mask with --experiments" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.txt"))
    command = ("prune-sweep", "--path", path, "--output", tmp_path / "out", "--groups", "A")
    assert run(*command) == 2
    assert "no heads to remove with --groups A" in capsys.readouterr().err


def test_ablations_of_two_models_are_not_compared(
    run: Callable[..., int], checkpoint: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    paths = [checkpoint(*ONE_LAYER, "--heads-per-layer", "E:2 A:0 D:0", seed=s) for s in (1, 2)]
    options = ("--beam", "1", "--max-sentences", "4", "--paired-bs-n", "10", "--paired-ar-n", "10")
    command = ("ablate", *options, "--path")
    assert run(*command, paths[0], "--output", tmp_path / "1") == 0
    other = tmp_path / "1" / "ablation.json"
    assert run(*command, paths[1], "--output", tmp_path / "2", "--compare", other) == 1
    assert "is of another model" in capsys.readouterr().err


MASKED = ("--encoder-layers", "2", "--head-mask", "E:1:1,2,3,4")
POLICIES = {
    # What is masked counts as removed first.
    "budget": (("--encoder-self", "0.5"), "E:0,4 A:4,4 D:4,4", None),
    "more": (("--encoder-self", "0.75"), "E:0,2 A:4,4 D:4,4", None),
    "minimum": (("--fraction", "0", "--min-heads", "1"), None, "the mask of the checkpoint leaves 0"),
    "explicit": (("--heads", "E:2:1", "--min-heads", "1"), None, "--heads leaves 0 heads in layer 1"),
    "uniform": (("--encoder-self", "0.5", "--uniform"), None, "leaves 0, 2 heads in the layers"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "layout", "message"), POLICIES.values(), ids=POLICIES)
def test_masked_heads_count_in_every_policy(
    run: Callable[..., int], checkpoint: Callable[..., Path], tmp_path: Path, capsys: Any,
    options: tuple[str, ...], layout: str | None, message: str | None,
) -> None:  # fmt: skip
    order = () if "--heads" in options else ("--random",)
    output = tmp_path / "out.pt"
    code = run("prune", "--path", checkpoint(*MASKED), "--output", output, *order, *options)
    if message:
        assert code == 2 and message in capsys.readouterr().err and not output.exists()
        return
    assert code == 0
    assert load_checkpoint_file(output)["cfg"]["model"].heads_per_layer == layout


def test_fractions_of_attention_that_is_not_there_are_refused(
    run: Callable[..., int], checkpoint: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    path = checkpoint(*ONE_LAYER, "--no-cross-attention")
    command = ("prune", "--path", path, "--output", tmp_path / "out.pt", "--random")
    assert run(*command, "--cross", "0.5") == 2
    assert "--cross: the model has no encoder-decoder attention" in capsys.readouterr().err


def test_a_fingerprint_covers_all_that_a_model_computes_with(
    loaded: Callable[..., Any],
) -> None:
    from admin_nmt.pruning.records import fingerprint

    model = loaded(*ONE_LAYER).model
    found = {fingerprint(model)}
    for options in (("--head-mask", "E:1:1"), ("--residual-attention", "all"),
                    ("--residual-attention", "all", "--residual-attention-reduce", "sum")):  # fmt: skip
        found.add(fingerprint(loaded(*ONE_LAYER, *options).model))
    with torch.no_grad():
        model.encoder.layers[0].fc1.weight.mul_(3)
    found.add(fingerprint(model))
    assert len(found) == 5


def test_orders_of_a_sweep_are_measured_once(
    run: Callable[..., int], checkpoint: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from admin_nmt.pruning import orders

    calls = []
    measure = orders.measure
    monkeypatch.setattr(orders, "measure", lambda *a, **k: calls.append(1) or measure(*a, **k))
    command = ["prune-sweep", "--path", checkpoint(*ONE_LAYER), "--beam", "1", "--max-sentences", "4",
               "--max-batches", "1", "--step", "0.5", "--groups", "EAD", "E", "--rerank",
               "--random-orders", "0", "--output", tmp_path / "out"]  # fmt: skip
    assert run(*command) == 0
    # One for both groups at the start; nothing is removed after the last step (0.5).
    assert len(calls) == 1
    assert run(*command, "--largest", "1") == 0
    assert len(calls) == 3  # each group after its first step
    assert run(*command, "--largest", "1") == 0
    assert len(calls) == 3
    assert run(*command, "--largest", "1", "--seed", "2") == 0
    assert len(calls) == 6


def test_a_batch_of_no_tokens_is_refused(
    run: Callable[..., int], checkpoint: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    command = ("ablate", "--path", checkpoint(*ONE_LAYER), "--output", tmp_path / "out")
    assert run(*command, "--decode-max-tokens", 0) == 2
    assert "--decode-max-tokens 0: give a number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage", [{"layout": []}, {"scores": []}, {"scores": {"E": [[float("nan")]]}}]
)
def test_damaged_scores_are_refused(
    loaded: Callable[..., Any], tmp_path: Path, damage: dict[str, Any]
) -> None:
    from admin_nmt.pruning.records import Measurement, load_measurements, save_measurements

    path = tmp_path / "heads.json"
    save_measurements([Measurement("x.pt", "0", {"E": (1,)}, {"E": [[1.0]]})], path)
    content = json.loads(path.read_text())
    content["measurements"][0] |= damage
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        load_measurements(path)
