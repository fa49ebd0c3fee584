"""The commands: from a checkpoint to a smaller one that every other program takes."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.cli.main import main
from admin_nmt.files import sha256
from admin_nmt.modules.head_names import Head
from tests.support.in_process import run_fairseq
from tests.support.pages import GUIDE, commands
from tests.support.programs import BIN
from tests.support.ranks import free_port

STOCK = "--arch transformer --encoder-layers 3 --decoder-layers 2 --encoder-embed-dim 32 "
STOCK += "--decoder-embed-dim 32 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 "
STOCK += "--encoder-attention-heads 4 --decoder-attention-heads 4 --share-all-embeddings"
MODELS = {
    "ours": ("--encoder-layers", "3"),
    "fairseq's": tuple(STOCK.split()),
    "RealFormer": ("--encoder-layers", "3", "--residual-attention", "all"),
}


def load(path: Path) -> Any:
    """A model as `fairseq-generate` builds it: from the checkpoint alone."""
    from fairseq import checkpoint_utils

    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    return model.eval()


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_importance_then_prune_gives_what_the_masked_model_gives(
    checkpoint: Callable[..., Path],
    data_bin: Path,
    tmp_path: Path,
    batch: dict[str, Any],
    options: tuple[str, ...],
) -> None:
    from admin_nmt.pruning.loading import load_model
    from admin_nmt.pruning.masked_translation import masked

    path, scores, pruned = checkpoint(*options), tmp_path / "heads.json", tmp_path / "pruned.pt"
    base = [str(data_bin), "--path", str(path), "--cpu"]
    plot = tmp_path / "heads.png"
    assert main(["importance", *base, "--max-batches", "2", "--output", str(scores),
                 "--plot", str(plot)]) == 0  # fmt: skip
    assert plot.stat().st_size > 1000
    chosen = tmp_path / "list.json"
    assert main(["prune", *base, "--importance", str(scores), "--fraction", "0.4", "--output",
                 str(pruned), "--list", str(chosen)]) == 0  # fmt: skip
    order = json.loads(scores.read_text())["measurements"][0]["order"]
    removed = json.loads(chosen.read_text())["removed"]
    assert len(order) == 28 and sorted(removed) == sorted(order[:12])  # ceil(0.4 * 28)

    source = load_model(str(path), data_bin, subset="train", cpu=True)
    heads = {Head(kind, int(layer), int(head)) for kind, layer, head in
             (name.split(":") for name in removed)}  # fmt: skip
    with masked(source.model, heads):
        expected = source.model(**batch["net_input"])[0]
    logits = load(pruned)(**batch["net_input"])[0]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=2e-5)
    # Equal to the checkpoint itself, which fairseq's own model computes.
    stock = load(path)(**batch["net_input"])[0]
    torch.testing.assert_close(source.model(**batch["net_input"])[0], stock, rtol=1e-5, atol=2e-5)
    assert pruned.stat().st_size < path.stat().st_size
    # And again, from the pruned one.
    again = tmp_path / "again.pt"
    assert main(["prune", str(data_bin), "--path", str(pruned), "--cpu", "--max-batches", "1",
                 "--encoder-self", "0.5", "--output", str(again)]) == 0  # fmt: skip
    assert torch.isfinite(load(again)(**batch["net_input"])[0]).all()


@pytest.mark.parametrize(
    ("policy", "layout"),
    [
        (["--heads", "E:3:1,E:3:2,3,A:1:2"], "E:4,4,1 A:3,4 D:4,4"),
        (["--uniform", "--encoder-self", "0.5", "--cross", "0.25"], "E:2,2,2 A:3,3 D:4,4"),
        (["--decoder-self", "1"], "E:4,4,4 A:4,4 D:0,0"),
        (["--fraction", "1", "--random"], "E:0,0,0 A:0,0 D:0,0"),
        (["--fraction", "0"], "E:4,4,4 A:4,4 D:4,4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_policies_reach_the_checkpoint(
    checkpoint: Callable[..., Path],
    data_bin: Path,
    tmp_path: Path,
    batch: dict[str, Any],
    policy: list[str],
    layout: str,
) -> None:
    path, pruned = checkpoint(*MODELS["ours"]), tmp_path / "pruned.pt"
    base = [str(data_bin), "--path", str(path), "--cpu", "--output", str(pruned)]
    measured = [] if {"--heads", "--random"}.intersection(policy) else ["--max-batches", "1"]
    assert main(["prune", *base, *policy, *measured]) == 0
    model = load(pruned)
    assert model.cfg.heads_per_layer == layout
    assert torch.isfinite(model(**batch["net_input"])[0]).all()


def test_protected_attention_and_minimum_are_kept(
    checkpoint: Callable[..., Path], data_bin: Path, tmp_path: Path
) -> None:
    path, pruned = checkpoint(*MODELS["ours"]), tmp_path / "pruned.pt"
    base = [str(data_bin), "--path", str(path), "--cpu", "--max-batches", "1"]
    assert main(["prune", *base, "--fraction", "0.5", "--protect-cross", "--min-heads", "1",
                 "--output", str(pruned)]) == 0  # fmt: skip
    counts = [int(n) for n in re.findall(r"\d", load(pruned).cfg.heads_per_layer)]
    assert len(counts) == 7 and sum(counts) == 14 and min(counts) >= 1
    assert "A:4,4" in load(pruned).cfg.heads_per_layer


BAD = {
    "no policy": ([], 2, "say which heads: --fraction"),
    "two policies": (["--fraction", ".1", "--cross", ".1"], 2, "--fraction and --cross exclude"),
    "no such head": (["--heads", "E:9:1"], 2, "head E:9:1 does not exist: the model has 3 layers"),
    "budget": (["--fraction", "1.2"], 2, "--fraction 1.2: give a fraction of heads between 0"),
    "minimum": (
        ["--fraction", "1", "--min-heads", "1"], 2,
        "28 heads cannot be removed; with --min-heads 1 at most 21 can",
    ),
    "folder": (["--fraction", "0", "--output", "nowhere/x.pt"], 2, "there is no folder nowhere"),
    "uniform minimum": (
        ["--fraction", "1", "--uniform", "--min-heads", "1", "--importance", "none.json"], 2,
        "--uniform with --fraction 1 leaves 0 heads",
    ),
    "one file for two": (["--fraction", "0", "--list", "./out.pt"], 2, "is the --output"),
    "nothing measured": (
        ["--fraction", ".1", "--importance", "none.json", "--granularity", "token"], 2,
        "--granularity has nothing to act on with --importance",
    ),
    "nothing compared": (
        ["--heads", "E:1:1", "--normalize", "kind"], 2,
        "--normalize has nothing to act on with --heads",
    ),
    "at random": (
        ["--fraction", ".1", "--random", "--max-batches", "1"], 2,
        "--max-batches has nothing to act on with --random",
    ),
    "scores": (["--fraction", "0", "--importance", "none.json", "--normalize", "kind"], 1, "cannot read none.json"),
    "subset": (["--fraction", "0", "--subset", "dev"], 1, "no subset dev; --subset can be one of"),
    "seed": (
        ["--fraction", "0.1", "--seed", "5000000000", "--max-batches", "1"], 2,
        "--seed 5000000000: give a number of at least 0 and at most 4294967295",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "code", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    checkpoint: Callable[..., Path],
    data_bin: Path,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: Any,
    options: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint(*MODELS["ours"])
    arguments = ["prune", str(data_bin), "--path", str(path), "--cpu", "--output", "out.pt"]
    assert main([*arguments, *options]) == code
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "error:" in x]
    assert line.startswith("admin-nmt prune: error: ") and message in line
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_not_replaced_by_its_pruned_self(
    checkpoint: Callable[..., Path], data_bin: Path, capsys: Any, tmp_path: Path
) -> None:
    path = checkpoint(*MODELS["ours"])
    before = path.read_bytes()
    arguments = ["prune", str(data_bin), "--fraction", "0.5", "--random", "--cpu", "--path"]
    assert main([*arguments, str(path), "--output", str(path.parent / "." / path.name)]) == 2
    assert "is an input" in capsys.readouterr().err
    assert path.read_bytes() == before
    (tmp_path / "there").touch()
    there = ["missing.pt", "--output", str(tmp_path / "there")]
    assert main([*arguments, *there]) == 1
    assert "there exists: give another name, or --force" in capsys.readouterr().err
    assert main([*arguments, *there, "--force"]) == 1
    assert "missing.pt" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["importance", "prune-sweep"])
def test_a_missing_checkpoint_is_found_before_the_first_is_measured(
    checkpoint: Callable[..., Path],
    data_bin: Path,
    tmp_path: Path,
    capsys: Any,
    monkeypatch: Any,
    command: str,
) -> None:
    from admin_nmt.pruning import measuring

    monkeypatch.setattr(measuring, "measure", lambda *_, **__: pytest.fail("measured"))
    paths = [str(checkpoint(*MODELS["ours"])), str(tmp_path / "missing.pt")]
    output = str(tmp_path / "out")
    assert main([command, str(data_bin), "--cpu", "--output", output, "--path", *paths]) == 1
    assert "missing.pt" in capsys.readouterr().err


def test_heads_of_a_file_that_happens_to_lie_here_are_not_taken_over(
    checkpoint: Callable[..., Path], data_bin: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """`checkpoint_last.pt` is fairseq's default, a name in --save-dir, not in the current folder."""
    path = checkpoint(*MODELS["ours"])
    monkeypatch.chdir(tmp_path)
    arguments = ["prune", str(data_bin), "--path", str(path), "--cpu", "--random"]
    assert main([*arguments, "--fraction", "0.5", "--output", "checkpoint_last.pt"]) == 0
    assert load(path).cfg.heads_per_layer is None


def test_heads_of_where_training_started_are_not_those_of_the_checkpoint(
    checkpoint: Callable[..., Path], data_bin: Path, tmp_path: Path
) -> None:
    """fairseq keeps --finetune-from-model beside the settings of its own models."""
    path = checkpoint(*MODELS["fairseq's"])
    pruned = tmp_path / "pruned.pt"
    arguments = ["prune", str(data_bin), "--cpu", "--random", "--fraction", "0.5"]
    assert main([*arguments, "--path", str(path), "--output", str(pruned)]) == 0
    state = torch.load(path, weights_only=True)
    state["cfg"]["model"].finetune_from_model = str(pruned)
    torch.save(state, tmp_path / "later.pt")
    later = ["--path", str(tmp_path / "later.pt"), "--output", str(tmp_path / "out.pt")]
    assert main([*arguments, *later]) == 0


def test_scores_of_another_model_are_refused(
    checkpoint: Callable[..., Path], data_bin: Path, tmp_path: Path, capsys: Any
) -> None:
    scores = tmp_path / "heads.json"
    other, path = checkpoint(*MODELS["ours"], seed=2), checkpoint(*MODELS["ours"])
    assert main(["importance", str(data_bin), "--path", str(other), "--cpu", "--max-batches", "1",
                 "--output", str(scores)]) == 0  # fmt: skip
    assert main(["prune", str(data_bin), "--path", str(path), "--cpu", "--fraction", ".1",
                 "--importance", str(scores), "--output", str(tmp_path / "out.pt")]) == 1  # fmt: skip
    assert "holds the importance of another model" in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.slow
def test_two_processes_measure_what_one_does(
    program: Callable[..., subprocess.CompletedProcess[str]],
    checkpoint: Callable[..., Path],
    data_bin: Path,
    tmp_path: Path,
) -> None:
    path = str(checkpoint(*MODELS["ours"]))
    command = ["importance", str(data_bin), "--path", path, "--cpu", "--max-tokens", "200"]
    program("torchrun", "--no-python", "--nproc_per_node", "2", "--master_port", str(free_port()),
            BIN / "admin-nmt", *command, "--output", tmp_path / "two.json")  # fmt: skip
    assert main([*command, "--output", str(tmp_path / "one.json")]) == 0
    one, two = (
        json.loads((tmp_path / f"{n}.json").read_text())["measurements"] for n in ("one", "two")
    )
    assert len(one) == len(two) == 1
    assert two[0]["settings"] == one[0]["settings"]
    for kind, layers in one[0]["scores"].items():
        for ours, theirs in zip(layers, two[0]["scores"][kind], strict=True):
            assert theirs == pytest.approx(ours, rel=1e-5)


def test_ablation_covers_all_heads_and_resumes(
    checkpoint: Callable[..., Path], data_bin: Path, tmp_path: Path, capsys: Any
) -> None:
    path = checkpoint("--encoder-layers", "1", "--decoder-layers", "1", "--heads-per-layer", "E:2")
    output = tmp_path / "out"
    command = ["ablate", str(data_bin), "--path", str(path), "--cpu", "--beam", "1",
               "--max-sentences", "12", "--paired-bs-n", "50", "--paired-ar-n", "50",
               "--output", str(output)]  # fmt: skip
    assert main(command) == 0
    first = json.loads((output / "ablation.json").read_text())
    assert first["num_sentences"] == 12 and (output / "ablation.png").stat().st_size > 1000
    names = [row["head"] for row in first["results"] if row["experiment"] == "one-head"]
    assert names == ["E:1:1", "E:1:2", *(f"A:1:{h}" for h in (1, 2, 3, 4)),
                     *(f"D:1:{h}" for h in (1, 2, 3, 4))]  # fmt: skip
    assert len(first["results"]) == 20
    for row in first["results"]:
        assert row["difference"] == pytest.approx(row["bleu"] - first["bleu"])
    # With two heads, "without the first" and "only the second" are one translation.
    by_name = {(row["experiment"], row["head"]): row["bleu"] for row in first["results"]}
    assert by_name["one-head", "E:1:1"] == by_name["all-but-one", "E:1:2"]
    files = sorted((output / "translations").rglob("*.txt"))
    assert len(files) == 1 + 2 + 8 + 8

    # Interrupted: what is there is not translated again, what is missing is.
    marked = "a translation that only this file has\n" * 12
    files[3].write_text(marked)
    files[5].unlink()
    assert main([*command, "--compare", str(output / "ablation.json")]) == 0
    assert files[3].read_text() == marked and files[5].exists()
    assert "on 10 heads: Pearson" in capsys.readouterr().out
    # Other settings would mix figures.
    command[command.index("--beam") + 1] = "2"
    assert main(command) == 1
    assert "holds translations with another beam (1, now 2)" in capsys.readouterr().err


def exchange_sides(data: Path, subset: str) -> None:
    """Another text of equal length under the names of a subset: its sides are exchanged."""
    for ending in ("bin", "idx"):
        de, en = (data / f"{subset}.de-en.{language}.{ending}" for language in ("de", "en"))
        content = de.read_bytes()
        de.write_bytes(en.read_bytes())
        en.write_bytes(content)


def test_translations_of_another_text_are_not_taken_for_those_of_the_test_set(
    checkpoint: Callable[..., Path], data_bin: Path, tmp_path: Path, capsys: Any
) -> None:
    data = shutil.copytree(data_bin, tmp_path / "bin")
    path = checkpoint("--encoder-layers", "1", "--decoder-layers", "1", "--heads-per-layer", "E:1")
    output, settings = tmp_path / "out", tmp_path / "out" / "settings.json"
    common = [str(data), "--path", str(path), "--cpu", "--beam", "1", "--max-sentences", "4",
              "--output", str(output)]  # fmt: skip
    ablate = ["ablate", *common, "--paired-bs-n", "5", "--paired-ar-n", "5", "--kinds", "E"]
    assert main(ablate) == 0
    recorded = json.loads(settings.read_text())
    assert recorded["test set"]["test.de-en.de.bin"] == sha256(data / "test.de-en.de.bin")
    exchange_sides(data, "test")
    sweep = ["prune-sweep", *common, "--step", "1", "--max-batches", "1", "--groups", "E"]
    for command in (ablate, sweep):
        capsys.readouterr()
        assert main(command) == 1
        said = capsys.readouterr().err
        assert "holds translations with another test set" in said and said.count("\n") == 1
        assert "give another --output, or remove that folder" in said
    # A folder of a version that did not look: nobody knows, and nothing is claimed.
    del recorded["test set"]
    settings.write_text(json.dumps(recorded))
    assert main(ablate) == 0
    assert json.loads(settings.read_text()) == recorded


def test_sweep_repeats_no_point_and_follows_the_order(
    checkpoint: Callable[..., Path], data_bin: Path, tmp_path: Path, capsys: Any
) -> None:
    paths = [str(checkpoint("--decoder-layers", "1", seed=seed)) for seed in (1, 2)]
    output = tmp_path / "out"
    command = ["prune-sweep", str(data_bin), "--path", *paths, "--cpu", "--beam", "1",
               "--max-sentences", "10", "--max-batches", "1", "--step", "0.5", "--largest", "1",
               "--groups", "EAD", "A", "--rerank", "--output", str(output)]  # fmt: skip
    assert main(command) == 0
    curves = json.loads((output / "sweep.json").read_text())["curves"]
    assert [(c["group"], c["order"]) for c in curves] == 2 * [
        (g, o) for g in ("EAD", "A") for o in ("importance", "rerank", "random 1")
    ]
    for curve in curves:
        total = 16 if curve["group"] == "EAD" else 4
        assert [len(p["removed"]) for p in curve["points"]] == [0, total // 2, total]
        assert all(a < b for a, b in zip(map(set, (p["removed"] for p in curve["points"])),
                                         map(set, (p["removed"] for p in curve["points"][1:])),
                                         strict=False))  # fmt: skip
        if curve["group"] == "A":
            assert {name[0] for name in curve["points"][2]["removed"]} == {"A"}
    assert (output / "sweep.png").stat().st_size > 1000
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.txt")}
    capsys.readouterr()
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*.txt")} == before
    assert "all heads" in capsys.readouterr().out
    assert json.loads((output / "sweep.json").read_text())["curves"] == curves


def test_commands_of_the_readme_run_as_written(
    checkpoint: Callable[..., Path], data_bin: Path, tmp_path: Path, monkeypatch: Any
) -> None:

    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    path = checkpoint("--encoder-layers", "1", "--decoder-layers", "1", "--heads-per-layer", "E:1")
    path.rename(tmp_path / "checkpoints" / "average.pt")
    search = ["--beam", "1", "--max-sentences", "3"]
    extra = {
        "importance": ["--max-batches", "1"],
        "prune": [],
        "ablate": [*search, "--paired-bs-n", "5", "--paired-ar-n", "5", "--kinds", "A"],
        "prune-sweep": [*search, "--step", "0.5", "--groups", "EAD", "A"],
    }
    ran = []
    for words in map(str.split, commands(GUIDE)):
        if words[0] == "admin-nmt" and words[1] in extra:
            words = [str(data_bin) if word == "DATA" else word for word in words[1:]]
            assert main([*words, "--cpu", *extra[words[0]]]) == 0
            ran.append(words[0])
    assert ran == list(extra)
    for name in ("heads.png", "pruned.pt", "ablation/ablation.png", "sweep/sweep.png"):
        assert (tmp_path / name).is_file()


def test_pruned_and_masked_models_go_through_the_front_door(
    checkpoint: Callable[..., Path],
    data_bin: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """fairseq-generate, fairseq-train --finetune-from-model --head-mask, average, prune."""
    from admin_nmt.evaluation.decoding import SearchOptions
    from admin_nmt.pruning.loading import load_model
    from admin_nmt.pruning.masked_translation import MaskedTranslator, TestSet

    path, pruned = checkpoint(*MODELS["ours"]), tmp_path / "pruned.pt"
    heads = "E:3:1,2,3,4,A:1:2,D:2:1"
    assert main(["prune", str(data_bin), "--path", str(path), "--cpu", "--heads", heads,
                 "--output", str(pruned)]) == 0  # fmt: skip

    # The same translations from the pruned file as from the model with masked heads.
    capsys.readouterr()
    run_fairseq("fairseq-generate", data_bin, "--path", pruned, "--cpu", "--beam", "2",
                "--max-tokens", "300")  # fmt: skip
    out = capsys.readouterr().out
    found = re.findall(r"^H-(\d+)\t\S+\t(.*)$", out, re.MULTILINE)
    assert len(found) == 20
    hypotheses = [text for _, text in sorted((int(number), text) for number, text in found)]
    test_set = TestSet(data_bin, "test", "en", SearchOptions(beam=2), tmp_path / "translations")
    source = load_model(str(path), data_bin, subset="test", cpu=True)
    from admin_nmt.modules.head_names import parse_heads

    masked_lines = MaskedTranslator(source, test_set).translate(set(parse_heads(heads)))
    from admin_nmt.evaluation.text import detokenize

    assert detokenize(hypotheses, "en") == masked_lines

    # Train on: heads are taken over, one more is masked from the start by a file.
    mask = tmp_path / "mask.json"
    mask.write_text(json.dumps({"format": "admin_nmt heads", "removed": ["E:1:2", "A:1:3"]}))
    run_fairseq("fairseq-train", data_bin, "--arch", "admin_transformer_tiny", "--encoder-layers", "3",
                "--finetune-from-model", pruned, "--head-mask", mask, "--cpu", "--optimizer", "radam",
                "--lr", "1e-2", "--max-tokens", "500", "--max-epoch", "2", "--weight-decay", "0",
                "--save-dir", tmp_path / "run", "--disable-validation", "--num-workers", "0")  # fmt: skip
    last = tmp_path / "run" / "checkpoint_last.pt"
    mask.unlink()  # the checkpoint has the list, not the name of the file
    before, after = load(pruned), load(last)
    assert after.cfg.heads_per_layer == before.cfg.heads_per_layer == "E:4,4,0 A:3,4 D:4,3"
    assert after.cfg.head_mask == "E:1:2,A:1:3"
    columns = [model.encoder.layers[0].self_attn.out_proj.weight.view(32, 4, 8)
               for model in (before, after)]  # fmt: skip
    changed = (columns[0] - columns[1]).abs().amax((0, 2)) > 1e-6
    assert changed.tolist() == [True, False, True, True]

    # Average two epochs, then remove the masked heads: same outputs.
    average, final = tmp_path / "average.pt", tmp_path / "final.pt"
    assert main(["average", "--inputs", str(tmp_path / "run"), "--num-epoch-checkpoints", "2",
                 "--output", str(average)]) == 0  # fmt: skip
    assert main(["prune", str(data_bin), "--path", str(average), "--cpu", "--fraction", "0",
                 "--output", str(final)]) == 0  # fmt: skip
    model = load(final)
    assert model.cfg.heads_per_layer == "E:3,4,0 A:2,4 D:4,3" and not model.cfg.head_mask
    sample = source.task.dataset("test").collater(
        [source.task.dataset("test")[i] for i in range(5)]
    )
    torch.testing.assert_close(
        model(**sample["net_input"])[0], load(average)(**sample["net_input"])[0],
        rtol=1e-5, atol=2e-5,
    )  # fmt: skip
