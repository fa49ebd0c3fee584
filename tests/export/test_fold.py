"""`admin-nmt fold`: a plain fairseq Transformer that computes the same."""

import copy
import pickletools
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.cli.main import main
from admin_nmt.errors import UserError
from admin_nmt.export import fold, fold_checkpoint
from admin_nmt.export.plain_transformer import fold_model
from admin_nmt.export.verification import compare_logits
from admin_nmt.models.settings import model_settings
from tests.support.in_process import run_fairseq
from tests.support.models import omegas
from tests.support.programs import run_without_us
from tests.support.tensors import relative_difference

SIZES = "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 32 --decoder-embed-dim 32"
SIZES = f"{SIZES} --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64".split()
SIZES += ["--encoder-attention-heads", "4", "--decoder-attention-heads", "4"]

#: Largest difference of float32 logits, relative to the largest logit. Folding rounds every weight
#: once more (2 ** -24), which weighs about as much as the rounding inside one forward pass.
FLOAT32_BOUND = 1e-5

MODELS = {
    "admin": (),
    "shared embeddings": ("--share-all-embeddings",),
    "shared with output": ("--share-decoder-input-output-embed",),
    "layernorm-embedding": ("--layernorm-embedding",),
    "unequal widths": ("--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "24"),
    "no cross-attention": ("--no-cross-attention",),
    "unequal depths": ("--encoder-layers", "5", "--decoder-layers", "1"),
    "frozen omega": ("--admin-freeze-omega", "--residual-attention", "none"),
    "learned positions": ("--encoder-learned-pos", "--decoder-learned-pos"),
    "60L-12L": ("--encoder-layers", "60", "--decoder-layers", "12"),
    "gelu, no final norm": ("--activation-fn", "gelu", "--no-decoder-final-norm"),
    "admin-log": ("--init-type", "admin-log"),
    "admin-const": ("--init-type", "admin-const", "--share-all-embeddings"),
    "admin-const, layernorm-embedding": ("--init-type", "admin-const", "--layernorm-embedding"),
    "deepnorm": ("--init-type", "deepnorm"),
    "deepnorm, layernorm-embedding": ("--init-type", "deepnorm", "--layernorm-embedding"),
    "plain post-LN": ("--init-type", "default", "--residual-attention-reduce", "sum"),
    "pre-LN": (
        "--init-type", "default", "--encoder-normalize-before", "--decoder-normalize-before",
    ),
}  # fmt: skip


def stock(folded: dict[str, Any], task: Any) -> Any:
    """fairseq's own model of a folded checkpoint."""
    model = task.build_model(Namespace(**folded["cfg"]["model"]))
    assert type(model).__module__.startswith("fairseq.")
    model.load_state_dict(folded["model"], strict=True)
    return model.eval()


def logits(model: Any, batch: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model(**batch["net_input"])[0]


@pytest.mark.parametrize(
    ("name", "seed"),
    [(name, seed) for name in MODELS for seed in (1, 2, 3) if seed == 1 or name != "60L-12L"],
)
def test_logits_are_equal_within_float32_rounding(
    make: Callable[..., Any],
    task: Any,
    batch: dict[str, Any],
    tmp_path: Path,
    name: str,
    seed: int,
) -> None:
    model, path = make(tmp_path / "model.pt", *MODELS[name], seed=seed)
    folded, report = fold_checkpoint(path)
    plain = stock(folded, task)
    difference = relative_difference(logits(plain, batch), logits(model, batch))
    assert difference < (20 if report.epsilon_factors else 1) * FLOAT32_BOUND


def test_a_folded_model_is_scripted(
    make: Callable[..., Any], task: Any, batch: dict[str, Any], tmp_path: Path
) -> None:
    """TorchScript takes fairseq's Transformer."""
    model, path = make(tmp_path / "model.pt", *MODELS["admin"])
    plain = stock(fold_checkpoint(path)[0], task)
    found = logits(torch.jit.script(plain), batch)
    assert relative_difference(found, logits(model, batch)) < FLOAT32_BOUND


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_the_fold_is_exact_in_float64(
    make: Callable[..., Any],
    build: Callable[..., Any],
    batch: dict[str, Any],
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    """Without rounding nothing is left but LayerNorm's epsilon in a constant first connection."""
    model, path = make(tmp_path / "model.pt", *options)
    settings = model_settings(Checkpoint.open(path))
    plain = build(*options, "--init-type", "default").eval().double()
    state, factors = fold_model(model.double().state_dict(), settings)
    assert all(value.dtype != torch.float32 for value in state.values() if value.numel() > 1)
    plain.load_state_dict(state)
    difference = relative_difference(logits(plain, batch), logits(model, batch))
    changed = "--layernorm-embedding" not in options and any(f[0] != 1 for f in factors.values())
    assert (1e-9 < difference < 1e-4) if changed else difference < 1e-12


def test_a_checkpoint_of_a_recipe_folds(
    make: Callable[..., Any], task: Any, batch: dict[str, Any], tmp_path: Path
) -> None:
    """`fairseq-hydra-train` keeps only what the recipe says; the architecture gives the rest."""
    model, path = make(tmp_path / "model.pt", "--share-all-embeddings")
    state = torch.load(path, weights_only=True)
    state["cfg"]["model"] = {"_name": "admin_transformer_tiny", "share_all_embeddings": True}
    torch.save(state, path)
    folded, _ = fold_checkpoint(path)
    found = logits(stock(folded, task), batch)
    assert relative_difference(found, logits(model, batch)) < FLOAT32_BOUND


def test_languages_outlive_a_task_that_is_not_known_here(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    _, path = make(tmp_path / "model.pt")
    state = torch.load(path, weights_only=True)
    state["cfg"]["task"] |= {"_name": "made_up", "source_lang": "de", "target_lang": "en"}
    torch.save(state, path)
    task = fold_checkpoint(path)[0]["cfg"]["task"]
    assert task["_name"] == "translation"
    assert (task["source_lang"], task["target_lang"]) == ("de", "en")


def test_few_learned_positions_are_enough_to_check_a_fold(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    _, path = make(
        tmp_path / "model.pt", "--decoder-learned-pos", "--max-target-positions", "12",
        "--encoder-learned-pos", "--max-source-positions", "20",
    )  # fmt: skip
    checkpoint = Checkpoint.open(path)
    agreement = compare_logits(checkpoint, fold(checkpoint)[0])
    assert agreement.difference < FLOAT32_BOUND * agreement.magnitude


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3])
def test_tiny_and_huge_omegas_fold(
    make: Callable[..., Any],
    task: Any,
    batch: dict[str, Any],
    tmp_path: Path,
    save: Callable[..., Path],
    parse: Callable[..., Any],
    size: float,
) -> None:
    model, _ = make(tmp_path / "model.pt")
    for omega in omegas(model):
        omega.data[::3] = size
        omega.data[1::3] = -size
    path = save(model, parse(), tmp_path / "tiny.pt")
    folded, report = fold_checkpoint(path)
    assert report.smallest_factor <= size * 1.001 and report.largest_factor >= size * 0.999
    found = logits(stock(folded, task), batch)
    assert relative_difference(found, logits(model, batch)) < FLOAT32_BOUND
    assert report.fits_half == (size > 1e-30)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(0.0, "1 of 32 components .* zero"), (float("nan"), "not finite"), (1e-42, "leave the range")],
)
def test_omegas_that_cannot_be_divided_by_are_refused(
    make: Callable[..., Any],
    tmp_path: Path,
    save: Callable[..., Path],
    parse: Callable[..., Any],
    value: float,
    reason: str,
) -> None:
    model, _ = make(tmp_path / "model.pt")
    last = list(omegas(model))[-1]
    last.data[5] = value
    path = save(model, parse(), tmp_path / "bad.pt")
    with pytest.raises(UserError, match=rf"(?s)(?=.*{reason})(?=.*decoder.layers.1.ffn_residual)"):
        fold_checkpoint(path)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_folds_in_float32_and_says_so(
    make: Callable[..., Any], task: Any, batch: dict[str, Any], tmp_path: Path, kind: torch.dtype
) -> None:
    model, path = make(tmp_path / "model.pt", "--share-all-embeddings")
    state = torch.load(path, weights_only=True)
    state["model"] = copy.deepcopy(model).to(kind).state_dict()
    torch.save(state, path)
    folded, report = fold_checkpoint(path)
    weights = folded["model"]
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert weights["encoder.embed_tokens.weight"] is weights["decoder.embed_tokens.weight"]
    model.load_state_dict({name: value.float() for name, value in state["model"].items()})
    found = logits(stock(folded, task), batch)
    assert relative_difference(found, logits(model, batch)) < FLOAT32_BOUND
    text = "\n".join(report.lines())
    assert f"the checkpoint was {str(kind).removeprefix('torch.')}" in text
    largest = max(float(value.abs().max()) for value in weights.values())
    assert report.largest_weight == pytest.approx(largest)


def test_weights_beyond_half_precision_are_reported(
    make: Callable[..., Any], tmp_path: Path, save: Callable[..., Path], parse: Callable[..., Any]
) -> None:
    model, _ = make(tmp_path / "model.pt")
    first, *_, last = omegas(model)
    first.data[0], last.data[0] = 1e-7, 1e7
    _, report = fold_checkpoint(save(model, parse(), tmp_path / "wide.pt"))
    assert not report.fits_half and report.lost_in_half > 0
    assert "float16 does NOT hold it" in "\n".join(report.lines())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--init-type", "rezero"), "--init-type rezero has no LayerNorm"),
        (("--residual-attention", "all"), "--residual-attention all, .* carries no attention"),
        (("--residual-attention", "encoder"), "--residual-attention encoder, .* carries no"),
        (("--arch", "transformer"), "nothing to fold"),
        (("--arch", "lstm"), "of architecture lstm"),
    ],
)
def test_models_that_cannot_be_folded_are_refused_with_the_reason(
    parse: Callable[..., Any],
    task: Any,
    save: Callable[..., Path],
    tmp_path: Path,
    options: tuple[str, ...],
    reason: str,
) -> None:
    cfg = parse(*options)
    path = save(task.build_model(cfg.model), cfg, tmp_path / "model.pt")
    with pytest.raises(UserError, match=reason):
        fold_checkpoint(path)


@pytest.mark.parametrize(
    "options",
    [
        ("--heads-per-layer", "E:3,0 A:4,1 D:0,2"),
        ("--head-mask", "E:1:2,A:2:1,4"),
        (
            "--heads-per-layer",
            "E:2,3 A:1,1",
            "--head-mask",
            "E:2:3,D:1:1",
            "--encoder-embed-dim=16",
        ),
    ],
)
def test_removed_and_masked_heads_become_heads_of_zeros(
    make: Callable[..., Any],
    task: Any,
    batch: dict[str, Any],
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    model, path = make(tmp_path / "model.pt", *options)
    folded, _ = fold_checkpoint(path)
    found = logits(stock(folded, task), batch)
    assert relative_difference(found, logits(model, batch)) < FLOAT32_BOUND


def test_removed_heads_that_the_settings_do_not_tell_are_refused(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    _, path = make(tmp_path / "model.pt")
    state = torch.load(path, weights_only=True)
    name = "encoder.layers.1.self_attn"
    state["model"][f"{name}.qkv_proj.weight"] = state["model"][f"{name}.qkv_proj.weight"][:72]
    torch.save(state, path)
    with pytest.raises(UserError, match=f"heads of {name} were removed"):
        fold_checkpoint(path)


def test_the_optimizer_state_is_dropped_with_a_word(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    _, path = make(tmp_path / "model.pt", last_optimizer_state={"state": {}})
    folded, report = fold_checkpoint(path)
    assert folded["last_optimizer_state"] is None
    assert "optimizer state dropped" in "\n".join(report.lines())


def hypotheses(output: str) -> list[str]:
    """Numbers and texts, without scores: these differ in the last digit."""
    lines = [line.split("\t") for line in output.splitlines() if line.startswith("H-")]
    return sorted(f"{number}\t{text}" for number, _, text in lines)


def test_the_folded_model_works_where_we_are_not_installed(
    word_model: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It loads, translates the same, and can be trained on, with nothing but a stock fairseq."""
    data_bin = prepared / "data-bin"
    output = tmp_path / "folded.pt"
    assert main(["fold", str(word_model), "--output", str(output)]) == 0
    assert "optimizer state dropped" in capsys.readouterr().out
    with zipfile.ZipFile(output) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        pickled = archive.read(name)
    assert b"omega" not in pickled and b"admin_" not in pickled
    modules = {
        argument.split()[0]
        for opcode, argument, _ in pickletools.genops(pickled)
        if opcode.name == "GLOBAL"
    }
    assert modules <= {"torch", "torch._utils", "collections"}

    generate = [data_bin, "--cpu", "--beam", 5, "--required-batch-size-multiple", 1, "--path"]
    run_fairseq("fairseq-generate", *generate, word_model)
    ours = capsys.readouterr().out
    theirs = run_without_us("fairseq_cli.generate", *generate, output).stdout
    assert len(hypotheses(ours)) == 20
    assert hypotheses(theirs) == hypotheses(ours)

    run_without_us(
        "fairseq_cli.train", data_bin, "--finetune-from-model", output, "--arch", "transformer",
        *SIZES, "--share-all-embeddings", "--cpu", "--max-tokens", 600, "--max-update", 1,
        "--optimizer", "adam", "--save-dir", tmp_path / "further", "--disable-validation",
        "--max-source-positions", 64, "--max-target-positions", 64,
        "--data-buffer-size", 0,  # its thread may still run when stock fairseq exits, which aborts
    )  # fmt: skip
    assert (tmp_path / "further" / "checkpoint_last.pt").exists()


@pytest.mark.parametrize(
    ("make_input", "output", "reason"),
    [
        (lambda path: path.write_text("text"), "new.pt", "not a checkpoint"),
        (lambda path: torch.save({"weights": 1}, path), "new.pt", "holds no model"),
        (lambda path: None, "new.pt", "does not exist|not found|No such"),
        (lambda path: path.write_text("text"), "no/such/new.pt", "there is no folder"),
        (lambda path: path.write_text("text"), "old.pt", "exists: .* --force"),
        (lambda path: path.write_text("text"), "input.pt", "is an input"),
        (lambda path: path.write_text("text"), ".", "is a folder"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make_input: Callable[[Path], None],
    output: str,
    reason: str,
) -> None:
    (tmp_path / "old.pt").write_text("old")
    make_input(tmp_path / "input.pt")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code = main(["fold", str(tmp_path / "input.pt"), "--output", str(tmp_path / output)])
    assert code in (1, 2)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(rf"admin-nmt fold: error: .*({reason})", line)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
