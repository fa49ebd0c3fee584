"""The criterion of word-level distillation: its objective, its teacher, and a training with it."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.criterions.label_smoothed_cross_entropy_distillation import load_teacher
from admin_nmt.errors import UsageError, UserError
from tests.reference import distillation as reference
from tests.support.criterions import OURS, SMOOTH, STILL
from tests.support.training import train_here

KD = ("--criterion", "label_smoothed_cross_entropy_distillation", *SMOOTH)
SHARED = ("--share-all-embeddings",)
#: Another width and depth than the student's.
TEACHER = (
    *SHARED,
    "--encoder-embed-dim",
    "48",
    "--decoder-embed-dim",
    "48",
    "--encoder-layers",
    "3",
)


@pytest.fixture(scope="module")
def teacher(checkpoint: Callable[..., Path]) -> Path:
    return checkpoint(*TEACHER, "--dropout", "0.3", seed=4)


def logits_of(path: Path, batch: Any, data: Path) -> Any:
    from fairseq import checkpoint_utils

    models, *_ = checkpoint_utils.load_model_ensemble_and_task(
        [str(path)], arg_overrides={"data": str(data)}
    )
    with torch.no_grad():
        return models[0].eval()(**batch["net_input"])[0].double().flatten(0, 1)


@pytest.mark.parametrize("reduce", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("recurrent", [False, True], ids=["transformer", "lstm"])
def test_objective_is_the_papers(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, data_bin: Path,
    teacher: Path, checkpoint: Callable[..., Path], reduce: bool, recurrent: bool,
) -> None:  # fmt: skip
    """Loss and gradients against loops over the logits of both models."""
    if recurrent:
        teacher = checkpoint("--arch", "lstm", seed=4)
    model = build(*SHARED, *STILL).train()
    options = ("--distillation-weight", "0.3", "--distillation-temperature", "2")
    kd = criterion(*KD, "--teacher", str(teacher), *options)
    loss, sample_size, log = kd(model, batch, reduce)
    loss.sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    logits = model(**batch["net_input"])[0].double().flatten(0, 1)
    expected, nll, kl = reference.objective(
        logits, logits_of(teacher, batch, data_bin), batch["target"].view(-1).tolist(), 0.1,
        "others", 0.3, 2.0, 1,
    )  # fmt: skip
    expected.backward()
    assert loss.sum().item() == pytest.approx(expected.item(), rel=1e-5)
    assert float(log["nll_loss"]) == pytest.approx(nll, rel=1e-5)
    assert float(log["teacher_kl"]) == pytest.approx(kl, rel=1e-4) and kl > 0.1
    assert sample_size == batch["ntokens"] == log["teacher_kl_ntokens"]
    for name, p in model.named_parameters():
        scale = float(p.grad.abs().max())
        torch.testing.assert_close(found[name], p.grad, rtol=1e-3, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("reduce", [True, False], ids=["fused", "plain"])
def test_ignored_prefix_is_left_out_of_both_terms_and_accuracy_is_reported(
    build: Callable[..., Any],
    criterion: Callable[..., Any],
    batch: Any,
    teacher: Path,
    reduce: bool,
) -> None:
    """As if the first two tokens of every target were padding."""
    model = build(*SHARED, *STILL).train()
    options = (*KD, "--teacher", str(teacher), "--report-accuracy")
    padded = {**batch, "target": batch["target"].clone()}
    padded["target"][:, :2] = 1
    loss, _, log = criterion(*options, "--ignore-prefix-size", "2")(model, batch, reduce)
    same, _, expected = criterion(*options)(model, padded, reduce)
    whole = criterion(*options)(model, batch)[2]
    assert loss.sum().item() == pytest.approx(same.sum().item(), rel=1e-5)
    for name in ("nll_loss", "teacher_kl", "n_correct", "total"):
        assert float(log[name]) == pytest.approx(float(expected[name]), rel=1e-4), name
    assert 0 < float(log["teacher_kl"]) < float(whole["teacher_kl"])


def test_validation_is_that_of_the_student_alone(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, teacher: Path
) -> None:
    model = build(*SHARED).eval()
    log = criterion(*KD, "--teacher", str(teacher))(model, batch)[2]
    plain = criterion(*OURS)(model, batch)[2]
    assert log.keys() == plain.keys()
    assert float(log["loss"]) == pytest.approx(float(plain["loss"]), rel=1e-6)


def test_the_teacher_is_neither_trained_nor_kept(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, teacher: Path
) -> None:
    model = build(*SHARED).to(torch.bfloat16).train()
    kd = criterion(*KD, "--teacher", str(teacher))
    kd.check_model(model)
    kd.train()
    kd(model, batch)[0].backward()
    assert not list(kd.parameters()) and not kd.state_dict()
    parameters = list(kd._load().model.parameters())
    assert all(p.grad is None and p.dtype == torch.bfloat16 for p in parameters)
    assert not kd._load().model.training


def test_wrong_teachers_are_refused_before_training(
    build: Callable[..., Any], criterion: Callable[..., Any], teacher: Path, tmp_path: Path
) -> None:
    model = build(*SHARED)
    with pytest.raises(UsageError, match="needs --teacher FILE"):
        criterion(*KD).check_model(model)
    with pytest.raises(UserError, match=r"none\.pt"):
        criterion(*KD, "--teacher", str(tmp_path / "none.pt")).check_model(model)
    state = torch.load(teacher, weights_only=True)
    for side in ("encoder", "decoder"):
        name = f"{side}.embed_tokens.weight"
        state["model"][name] = state["model"][name][:-1]
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(UserError, match="does not fit the vocabulary"):
        criterion(*KD, "--teacher", str(tmp_path / "other.pt")).check_model(model)
    checkpoint = Checkpoint.open(teacher)
    task = checkpoint.state["cfg"]["task"]
    task["source_lang"], task["target_lang"] = "en", "de"
    checkpoint.save(tmp_path / "reverse.pt")
    with pytest.raises(UsageError, match=r"reverse\.pt was .* from en to de, not from de to"):
        criterion(*KD, "--teacher", str(tmp_path / "reverse.pt")).check_model(model)
    with pytest.raises(UsageError, match="for --task translation, not SimpleNamespace"):
        load_teacher(str(teacher), SimpleNamespace(cfg=None))
    for option, value in (("weight", "1.5"), ("weight", "-1"), ("temperature", "0")):
        with pytest.raises(UsageError, match=f"--distillation-{option} must be"):
            criterion(*KD, f"--distillation-{option}={value}")


def test_a_teacher_of_shorter_sentences_is_refused(
    build: Callable[..., Any], criterion: Callable[..., Any], checkpoint: Callable[..., Path]
) -> None:
    """Where its positions are learned; others are computed."""
    short = (*SHARED, "--max-target-positions", "40")
    learned = criterion(*KD, "--teacher", str(checkpoint(*short, "--decoder-learned-pos")))
    with pytest.raises(UserError, match=r"of at most 40 tokens.*: give --max-target-positions 40$"):
        learned.check_model(build(*SHARED))
    learned.check_model(build(*short))
    criterion(*KD, "--teacher", str(checkpoint(*short))).check_model(build(*SHARED))


def test_a_training_learns_from_its_teacher(data_bin: Path, teacher: Path, tmp_path: Path) -> None:
    """`fairseq-train` as the documentation has it."""
    said = train_here(
        data_bin, "--arch", "admin_transformer_tiny", "--cpu", *SHARED, *KD,
        "--teacher", teacher, "--distillation-weight", "1", "--max-tokens", "300", "--optimizer",
        "radam", "--lr", "5e-3", "--max-update", "40", "--dropout", "0", "--save-dir", tmp_path,
        "--no-epoch-checkpoints", "--log-format", "simple", "--log-interval", "4", "--disable-validation",
    )  # fmt: skip
    kl = [float(value) for value in re.findall(r"teacher_kl=([\d.]+)", said)]
    assert kl[-1] < 0.8 * kl[0], kl
    trained = Checkpoint.open(tmp_path / "checkpoint_last.pt")
    assert trained.setting("model", "encoder_layers") == 2
    assert not [name for name in trained.weights if "teacher" in name]
