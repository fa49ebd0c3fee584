"""R-Drop through `fairseq-train`: precisions, accumulation, ranks, validation with BLEU, resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.cli.main import main
from tests.support.criterions import RDROP, STILL, STOCK
from tests.support.in_process import run_fairseq
from tests.support.ranks import run_ranks
from tests.support.training import logged, require_learning, run_training, train_here

COMMON = (
    "--arch", "admin_transformer_tiny", "--share-all-embeddings", "--seed", "3",
    "--num-workers", "0", "--no-epoch-checkpoints",
)  # fmt: skip


def training_metrics(state: dict[str, Any]) -> dict[str, float]:
    return {
        entry[1]: float(entry[3]["sum"]) / float(entry[3]["count"])
        for entry in state["extra_state"]["metrics"]["train"]
        if entry[2] == "AverageMeter" and entry[3].get("count")
    }


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--fp16", "--fp16-init-scale", "4"),
        ("--bf16",),
        ("--memory-efficient-fp16", "--fp16-init-scale", "4"),
        ("--checkpoint-activations",),
        ("--update-freq", "4,2,1"),
        ("--sentence-avg",),
        ("--rdrop-interval", "2"),
        ("--rdrop-passes", "3"),
        ("--arch", "transformer_tiny"),
    ],
    ids=lambda options: " ".join(options) or "float32",
)
def test_every_mode_learns(parse: Callable[..., Any], tmp_path: Path, options: tuple) -> None:
    state = require_learning(
        parse, tmp_path, *COMMON, *RDROP, "--rdrop-alpha", "1", "--dropout", "0.1", *options
    )
    assert training_metrics(state)["rdrop_kl"] > 1e-4


def test_checkpointed_activations_change_nothing(parse: Callable[..., Any], tmp_path: Path) -> None:
    options = (*RDROP, "--dropout", "0.2", "--max-update", "3", "--disable-validation")
    plain = run_training(parse, tmp_path / "plain", *COMMON, *options)["model"]
    saved = run_training(parse, tmp_path / "saved", *COMMON, *options, "--checkpoint-activations")[
        "model"
    ]
    assert plain.keys() == saved.keys()
    for name, value in plain.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=1e-6)


def test_accumulated_batches_are_one_batch(parse: Callable[..., Any], tmp_path: Path) -> None:
    """Ten batches of `--update-freq 10` and one that holds them all give the same update."""
    options = (
        *RDROP, *STILL, "--max-update", "1", "--disable-validation", "--init-type", "default",
        "--optimizer", "sgd", "--lr", "0.1",
    )  # fmt: skip
    many = run_training(parse, tmp_path / "many", *COMMON, *options, "--update-freq", "100")
    one = run_training(parse, tmp_path / "one", *COMMON, *options, "--max-tokens", "100000")
    for name, value in one["model"].items():
        torch.testing.assert_close(many["model"][name], value, rtol=1e-4, atol=1e-6)
    for name in ("loss", "nll_loss"):
        assert training_metrics(many)[name] == pytest.approx(training_metrics(one)[name], rel=1e-4)


@pytest.mark.slow
def test_two_ranks_sum_to_one(data_bin: Path, tmp_path: Path) -> None:
    """Losses and weights of two ranks equal those of one rank with `--update-freq 2`, in updates
    with R-Drop and without."""
    options = (
        *RDROP, "--rdrop-interval", "2", *STILL, "--optimizer", "sgd", "--lr", "0.1",
        "--max-update", "3", "--init-type", "default", "--ddp-backend", "pytorch_ddp",
    )  # fmt: skip
    twos = logged(run_ranks(data_bin, tmp_path / "two", *options))
    ones = logged(
        train_here(
            data_bin, *COMMON, "--cpu", "--max-tokens", "150", "--update-freq", "2",
            "--log-format", "json", "--log-interval", "1", "--save-dir", tmp_path / "one",
            "--disable-validation", *options,
        )
    )  # fmt: skip
    assert [update["rdrop_kl"] is None for update in ones] == [False, True, False]
    for two, one in zip(twos, ones, strict=True):
        for name in ("loss", "nll_loss", "rdrop_kl", "gnorm"):
            if one[name] is None:
                assert two[name] is None
                continue
            assert float(two[name]) == pytest.approx(float(one[name]), abs=2e-3), name
    models = [
        load_checkpoint_file(tmp_path / name / "checkpoint_last.pt")["model"]
        for name in ("two", "one")
    ]
    for name, value in models[1].items():
        torch.testing.assert_close(models[0][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_validation_with_bleu_and_ignored_prefix(data_bin: Path, tmp_path: Path) -> None:
    """fairseq's R-Drop criterion crashes on either; figures of validation are the plain ones."""
    training = (
        data_bin, *COMMON, "--cpu", "--max-tokens", "300", "--optimizer", "adam",
        "--lr", "1e-3", "--max-update", "2", "--no-save", "--save-dir", tmp_path, "--dropout", "0.2", "--eval-bleu",
        "--eval-bleu-args", '{"beam": 2}', "--log-format", "json", "--ignore-prefix-size", "1",
    )  # fmt: skip
    losses = {}
    for options in (RDROP, STOCK):
        losses[options] = logged(train_here(*training, "--lr", "0", *options), "valid")[-1]
    assert "valid_bleu" in losses[RDROP] and "valid_rdrop_kl" not in losses[RDROP]
    for name in ("valid_loss", "valid_nll_loss", "valid_ppl"):
        ours, stock = float(losses[RDROP][name]), float(losses[STOCK][name])
        assert ours == pytest.approx(stock, abs=2e-3)


def test_resumed_run_keeps_the_interval(parse: Callable[..., Any], tmp_path: Path) -> None:
    """R-Drop every third update: stopping after two updates must not shift it."""
    options = (*RDROP, "--rdrop-interval", "3", "--dropout", "0.2", "--disable-validation")
    whole = run_training(parse, tmp_path / "whole", *COMMON, *options, "--max-update", "5")
    run_training(parse, tmp_path / "parts", *COMMON, *options, "--max-update", "2")
    parts = run_training(parse, tmp_path / "parts", *COMMON, *options, "--max-update", "5")
    for name, value in whole["model"].items():
        assert torch.equal(parts["model"][name], value), name


@pytest.mark.slow
def test_best_checkpoint_by_bleu_is_resumed_and_evaluated(data_bin: Path, tmp_path: Path) -> None:
    """As in the recipe: the checkpoint then holds numpy's numbers."""
    training = (
        data_bin, *COMMON, "--cpu", "--max-tokens", "300", "--optimizer", "adam", "--lr", "1e-3",
        *RDROP, "--save-dir", tmp_path, "--eval-bleu", "--eval-bleu-args", '{"beam": 1}',
        "--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric",
        "--log-format", "json",
    )  # fmt: skip
    log = train_here(*training, "--max-epoch", "1")
    log += train_here(*training, "--max-epoch", "2")
    assert "checkpoint_last.pt (epoch 2" in log
    bleu = {
        int(entry["valid_num_updates"]): float(entry["valid_bleu"])
        for entry in logged(log, "valid")
    }
    assert len(bleu) == 2
    best = load_checkpoint_file(tmp_path / "checkpoint_best.pt")
    updates = best["optimizer_history"][-1]["num_updates"]
    assert updates == max(sorted(bleu, reverse=True), key=bleu.__getitem__)
    assert best["extra_state"]["best"] == pytest.approx(bleu[updates], abs=0.01)
    evaluate = ["evaluate", data_bin, "--path", tmp_path / "checkpoint_best.pt", "--cpu"]
    evaluate += ["--beam", "1", "--output", tmp_path / "scores"]
    assert main([*map(str, evaluate)]) == 0
    assert (tmp_path / "scores" / "scores.json").exists()


def test_encoder_only_model_is_one_line(
    data_bin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`masked_lm` builds an encoder; there is nothing to predict token by token."""
    import shutil

    folder = tmp_path / "mlm"
    folder.mkdir()
    shutil.copy(data_bin / "dict.en.txt", folder / "dict.txt")
    for kind in ("bin", "idx"):
        shutil.copy(data_bin / f"train.de-en.en.{kind}", folder / f"train.{kind}")
    with pytest.raises(SystemExit) as ended:
        run_fairseq(
            "fairseq-train", folder, "--task", "masked_lm", "--arch", "roberta",
            "--encoder-layers", "1", "--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "16",
            "--encoder-attention-heads", "2", "--tokens-per-sample", "20", "--max-positions", "20",
            "--max-tokens", "200", "--cpu", "--optimizer", "adam", "--no-save",
            "--disable-validation", "--num-workers", "0", "--save-dir", tmp_path / "saved", *RDROP,
        )  # fmt: skip
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert "has no decoder that predicts tokens" in errors.splitlines()[-1]
    # It was said before the first update: an exception in one leaves a dump.
    assert not list((tmp_path / "saved").glob("*"))
