"""R-Drop's criterion: its objective, its figures, and the defects of fairseq's that it must not have.

The numbers in brackets are those of the list of defects of fairseq's
`label_smoothed_cross_entropy_with_rdrop` that this criterion was written against.
"""

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from admin_nmt.criterions.batch import by_pass, repeat_batch
from admin_nmt.errors import UsageError
from admin_nmt.ops import linear_loss
from tests.reference import rdrop as reference
from tests.support.criterions import OURS, RDROP, STILL, STOCK
from tests.support.models import on_device
from tests.support.tensors import Largest
from tests.support.training import train_here

REALFORMER = ("--residual-attention", "all")


@pytest.mark.parametrize("options", [(), REALFORMER], ids=["plain", "realformer"])
def test_objective_is_the_papers_loss_on_two_dropout_passes(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, device: str,
    options: tuple[str, ...],
) -> None:  # fmt: skip
    """Loss and gradients against loops over the logits of the very same doubled forward pass."""
    model = build("--dropout", "0.3", "--share-all-embeddings", *options).to(device)
    batch = on_device(batch, device)
    model.train()
    rdrop = criterion(*RDROP, "--rdrop-alpha", "4")
    torch.manual_seed(5)
    loss, sample_size, log = rdrop(model, batch)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch.manual_seed(5)
    rows = [row for row in range(len(batch["target"])) for _ in range(2)]
    doubled = {name: value[rows] for name, value in batch["net_input"].items()}
    logits = model(**doubled)[0].double()
    passes = torch.stack([logits[::2], logits[1::2]]).flatten(1, 2)
    expected, nll, kl = reference.objective(
        passes.cpu(), batch["target"].view(-1).tolist(), 0.1, "others", 4.0, 1
    )
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert float(log["nll_loss"]) == pytest.approx(nll / 2, rel=1e-5)
    assert float(log["rdrop_kl"]) == pytest.approx(kl, rel=1e-4) and kl > 0.1
    assert float(log["loss"]) == pytest.approx(expected.item() / 2, rel=1e-5)
    assert sample_size == log["ntokens"] == batch["ntokens"]
    for name, p in model.named_parameters():
        scale = float(p.grad.abs().max())
        torch.testing.assert_close(found[name], p.grad, rtol=1e-3, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("checkpointing", [(), ("--checkpoint-activations",)])
def test_carried_scores_of_the_passes_stay_apart(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any,
    checkpointing: tuple[str, ...],
) -> None:  # fmt: skip
    """RealFormer with ADMIN: two passes under one dropout each give what they give alone."""
    model = build(*STILL, *REALFORMER, "--init-type", "admin", *checkpointing)
    model.train()
    alone = model(**batch["net_input"])[0]
    size = batch["target"].shape[0]
    together = model(**repeat_batch(batch["net_input"], size, 2))[0]
    torch.testing.assert_close(together[::2], alone)
    torch.testing.assert_close(together[1::2], alone)
    loss, _, log = criterion(*RDROP)(model, batch)
    plain, _, _ = criterion(*STOCK)(model, batch)
    assert loss.item() == pytest.approx(2 * plain.item(), rel=1e-5)
    assert abs(float(log["rdrop_kl"])) < 1e-3


@pytest.mark.parametrize("passes", ["2", "3"])
def test_passes_differ_only_by_dropout(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, passes: str
) -> None:
    """Without dropout R-Drop is label smoothing, times the number of passes under `sum`."""
    model = build(*STILL)
    model.train()
    plain, _, plain_log = criterion(*STOCK)(model, batch)
    for scale, factor in (("sum", int(passes)), ("mean", 1)):
        options = ("--rdrop-loss-scale", scale, "--rdrop-passes", passes)
        loss, _, log = criterion(*RDROP, *options)(model, batch)
        assert loss.item() == pytest.approx(factor * plain.item(), rel=1e-5)
        for name in ("loss", "nll_loss"):
            assert float(log[name]) == pytest.approx(float(plain_log[name]), rel=1e-5)
        assert abs(float(log["rdrop_kl"])) < 1e-3


@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_alpha_zero_is_label_smoothing(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, scale: str
) -> None:
    """With dropout on: one pass runs, on the same random numbers as without R-Drop, and its gradient is
    that of label smoothing, so that a sweep of alpha has its baseline at 0."""
    model = build("--dropout", "0.3")
    model.train()
    torch.manual_seed(3)
    plain, _, plain_log = criterion(*STOCK)(model, batch)
    torch.manual_seed(3)
    loss, _, log = criterion(*RDROP, "--rdrop-alpha", "0", "--rdrop-loss-scale", scale)(
        model, batch
    )
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert float(log["loss"]) == pytest.approx(float(plain_log["loss"]), rel=1e-5)
    assert "rdrop_kl" not in log


def sizes_of_passes(model: Any) -> list[int]:
    """Gets the number of sentences of every forward pass that follows."""
    sizes: list[int] = []
    model.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs.get("src_tokens", *args[:1]).shape[0]),
        with_kwargs=True,
    )
    return sizes


def test_all_passes_are_one_forward_pass_without_logits(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, task: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """[6] fairseq's keeps five tensors of the size of all logits; here no tensor is so large."""

    monkeypatch.setattr(linear_loss, "_CHUNK_ELEMENTS", {"cpu": 100, "cuda": 100})
    monkeypatch.setattr(linear_loss, "_MIN_CHUNK_TOKENS", 2)
    model = build("--dropout", "0.3")
    model.train()
    num_types = len(task.target_dictionary)
    all_logits = 2 * batch["target"].numel() * num_types
    sizes = sizes_of_passes(model)
    with Largest() as largest:
        criterion(*RDROP)(model, batch)[0].backward()
    assert sizes == [2 * batch["target"].shape[0]]
    logits = [n for n, row in zip(largest.sizes, largest.rows, strict=True) if row == num_types]
    assert 0 < max(logits) < all_logits / 4


def test_validation_runs_one_pass_and_reports_plain_figures(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    """[1, 2] fairseq's validation loss is doubled, its perplexity squared, its cost doubled."""
    model = build("--dropout", "0.3").eval()
    rdrop = criterion(*RDROP)
    sizes = sizes_of_passes(model)
    with torch.no_grad():
        loss, size, log = rdrop(model, batch)
        expected, expected_size, expected_log = criterion(*STOCK)(model, batch)
    assert sizes == 2 * [batch["target"].shape[0]]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert size == expected_size and log.keys() == expected_log.keys()
    assert float(log["nll_loss"]) == pytest.approx(float(expected_log["nll_loss"]), rel=1e-5)


def test_sample_is_not_changed(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    """[3] fairseq's doubles `sample["net_input"]` in place, which breaks --eval-bleu."""
    sample = copy.deepcopy(batch)
    model = build("--dropout", "0.3")
    model.train()
    criterion(*RDROP)(model, sample)
    assert sample["net_input"].keys() == batch["net_input"].keys()
    for name, value in batch["net_input"].items():
        assert torch.equal(sample["net_input"][name], value)
    assert torch.equal(sample["target"], batch["target"])


def test_ignored_prefix_is_ignored_by_both_terms(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    """[4] fairseq's crashes. The first two tokens must not matter, whatever they are."""
    model = build("--dropout", "0.3")
    model.train()
    rdrop = criterion(*RDROP, "--ignore-prefix-size", "2")
    changed = {**batch, "target": batch["target"].clone()}
    changed["target"][:, :2] = 7
    logs = []
    for sample in (batch, changed):
        torch.manual_seed(4)
        loss, _, log = rdrop(model, sample)
        logs.append((loss.item(), float(log["rdrop_kl"]), float(log["nll_loss"])))
    assert logs[0] == logs[1]
    torch.manual_seed(4)
    whole, _, whole_log = criterion(*RDROP)(model, batch)
    assert float(whole_log["rdrop_kl"]) > logs[0][1] > 0 and whole.item() > logs[0][0]


def test_unreduced_divergence_stays_with_its_token(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    """[5] fairseq's adds the sum of the divergence to every token, padding included."""
    model = build("--dropout", "0.3")
    model.train()
    rdrop = criterion(*RDROP)
    torch.manual_seed(6)
    total, _, log = rdrop(model, batch)
    torch.manual_seed(6)
    each, _, each_log = rdrop(model, batch, reduce=False)
    assert each.shape == (batch["target"].numel(),)
    assert (each[batch["target"].view(-1) == 1] == 0).all()
    assert each.sum().item() == pytest.approx(total.item(), rel=1e-5)
    assert float(each_log["rdrop_kl"]) == pytest.approx(float(log["rdrop_kl"]), rel=1e-4)


def test_only_what_has_a_batch_dimension_is_repeated() -> None:
    """[7] fairseq's doubles every tensor along dimension 0, or fails to."""
    tokens, lengths = torch.arange(12).view(4, 3), torch.tensor([3, 3, 2, 1])
    time_first, scalar, other = torch.randn(7, 4, 2), torch.tensor(5), torch.randn(3, 5)
    inputs = {
        "src_tokens": tokens, "src_lengths": lengths, "scalar": scalar, "name": "x", "none": None,
        "nested": [{"time_first": time_first}, (other,)],
    }  # fmt: skip
    repeated = repeat_batch(inputs, 4, 3)
    rows = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert torch.equal(repeated["src_tokens"], tokens[rows])
    assert repeated["src_lengths"].tolist() == [3, 3, 3, 3, 3, 3, 2, 2, 2, 1, 1, 1]
    assert torch.equal(repeated["nested"][0]["time_first"], time_first[:, rows])
    assert repeated["scalar"] is scalar and repeated["nested"][1][0] is other
    assert (repeated["name"], repeated["none"]) == ("x", None)
    assert repeat_batch(inputs, 4, 1) is inputs
    assert torch.equal(inputs["src_tokens"], tokens)


def test_accuracy_and_tokens_count_each_token_once(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    """[8] fairseq's totals are doubled."""
    model = build(*STILL)
    model.train()
    _, _, log = criterion(*RDROP, "--report-accuracy")(model, batch)
    _, _, expected = criterion(*STOCK, "--report-accuracy")(model, batch)
    for name in ("total", "n_correct", "ntokens", "nsentences", "sample_size"):
        assert float(log[name]) == float(expected[name]), name


def test_gradient_scale_can_be_that_of_a_plain_run(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    """[9] The authors' sum over passes doubles the gradient; `mean` does not."""
    model = build(*STILL)
    model.train()
    norms = []
    for options in (STOCK, (*RDROP, "--rdrop-loss-scale", "mean"), RDROP):
        model.zero_grad()
        criterion(*options)(model, batch)[0].backward()
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    assert norms[2] == pytest.approx(2 * norms[0], rel=1e-4)


def test_interval_runs_rdrop_on_every_kth_update(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    """[10] k-step R-Drop; the loss keeps its scale on the updates between."""
    model = build(*STILL)
    model.train()
    rdrop = criterion(*RDROP, "--rdrop-interval", "3")
    with_kl, sizes = [], set()
    for update in range(7):
        rdrop.set_num_updates(update)
        loss, _, log = rdrop(model, batch)
        with_kl.append("rdrop_kl" in log)
        sizes.add(round(loss.item(), 2))
    assert with_kl == [True, False, False, True, False, False, True]
    assert max(sizes) - min(sizes) < 0.02


def test_metrics_are_bits_per_true_token(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    """Two accumulated batches, only one of them with R-Drop."""
    from fairseq.logging import metrics

    rdrop = criterion(*RDROP)
    logs = [
        {"loss": torch.tensor(8.0), "nll_loss": torch.tensor(6.0), "ntokens": 4, "sample_size": 4,
         "nsentences": 1, "rdrop_kl": torch.tensor(2.0), "rdrop_kl_ntokens": 4},
        {"loss": torch.tensor(8.0), "nll_loss": torch.tensor(6.0), "ntokens": 4, "sample_size": 4,
         "nsentences": 1},
    ]  # fmt: skip
    with metrics.aggregate() as aggregate:
        rdrop.reduce_metrics(logs)
    values = aggregate.get_smoothed_values()
    bit = 0.6931471805599453
    assert values["loss"] == pytest.approx(2.0 / bit, abs=1e-3)
    assert values["nll_loss"] == pytest.approx(1.5 / bit, abs=1e-3)
    assert values["ppl"] == pytest.approx(2 ** (1.5 / bit), abs=1e-2)
    assert values["rdrop_kl"] == pytest.approx(0.5 / bit, abs=1e-4)


@pytest.mark.parametrize("options", [(), REALFORMER], ids=["plain", "realformer"])
def test_rdrop_without_dropout_warns_once(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any,
    caplog: pytest.LogCaptureFixture, options: tuple[str, ...],
) -> None:  # fmt: skip
    """Layer drop alone is not enough: all passes run in one batch, through the same layers."""
    layer_drop = ("--encoder-layerdrop", "0.1", "--decoder-layerdrop", "0.1", *options)
    rdrop = criterion(*RDROP)
    with caplog.at_level(logging.WARNING):
        for dropout in (("--dropout", "0.1"), STILL):
            model = build(*dropout, *layer_drop)
            model.train()
            for _ in range(2):
                criterion_ = rdrop if dropout is STILL else criterion(*RDROP)
                criterion_(model, batch)
            assert caplog.text.count("R-Drop does nothing") == (dropout is STILL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rdrop-alpha", "-1"), "--rdrop-alpha must be a number of at least 0, not -1"),
        (("--rdrop-alpha", "nan"), "--rdrop-alpha must be a number of at least 0, not nan"),
        (("--rdrop-interval", "0"), "--rdrop-interval must be at least 1, not 0"),
        (("--rdrop-passes", "1"), "--rdrop-passes must be at least 2, not 1"),
    ],
)
def test_senseless_options_are_refused(
    criterion: Callable[..., Any], options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        criterion(*RDROP, *options)


def test_plain_and_fused_path_agree(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    model = build("--dropout", "0.3")
    model.train()
    results = []
    for linear in (True, False):
        rdrop = criterion(*RDROP, "--rdrop-passes", "3", "--report-accuracy")
        rdrop._find_output_layer(model)
        if not linear:
            rdrop.__dict__["_output"] = None
        torch.manual_seed(8)
        model.zero_grad()
        loss, _, log = rdrop(model, batch)
        loss.backward()
        figures = {name: float(value) for name, value in log.items()}
        results.append((loss.item(), figures, [p.grad.clone() for p in model.parameters()]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)
    for fused, plain in zip(results[0][2], results[1][2], strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-5 * float(plain.abs().max()))


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("lstm", ()),
        ("fconv", ("--encoder-layers", "[(32, 3)] * 2", "--decoder-layers", "[(32, 3)] * 2")),
        ("lightconv_iwslt_de_en", ()),
        ("transformer_align", ()),
    ],
)
def test_fairseqs_other_models_can_use_it(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, arch: str,
    options: tuple[str, ...],
) -> None:  # fmt: skip
    """Recurrent encoders among them, which refuse batches that are not sorted by length."""
    model = build("--arch", arch, "--dropout", "0.3", *options)
    model.train()
    loss, _, log = criterion(*RDROP)(model, batch)
    loss.backward()
    assert torch.isfinite(loss) and float(log["rdrop_kl"]) > 0
    model.eval()
    with torch.no_grad():
        alone = model(**batch["net_input"])[0]
        together = model(**repeat_batch(batch["net_input"], len(alone), 2))[0]
    torch.testing.assert_close(by_pass(together, 2), torch.stack([alone, alone]))


def test_a_language_model_can_use_it(tmp_path: Any, data_bin: Any) -> None:
    """The `language_modeling` task, fairseq's own architecture, both criterions."""
    import shutil

    folder = tmp_path / "lm"
    folder.mkdir()
    shutil.copy(data_bin / "dict.en.txt", folder / "dict.txt")
    for split in ("train", "valid"):
        for kind in ("bin", "idx"):
            shutil.copy(data_bin / f"{split}.de-en.en.{kind}", folder / f"{split}.{kind}")
    for options in (OURS, RDROP):
        output = train_here(
            folder, "--task", "language_modeling", "--arch", "transformer_lm",
            "--decoder-layers", "1", "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "16",
            "--decoder-attention-heads", "2", "--tokens-per-sample", "20", "--max-tokens", "200",
            "--cpu", "--optimizer", "adam", "--lr", "1e-3", "--max-update", "3", "--no-save", "--save-dir", tmp_path,
            "--num-workers", "0", "--required-batch-size-multiple", "1", *options,
        )  # fmt: skip
        assert "valid on 'valid' subset" in output and "not a linear map" not in output
        assert ("rdrop_kl" in output) == (options is RDROP)
