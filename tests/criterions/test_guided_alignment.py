"""Attention trained on word alignments (`--load-alignments`), by our criterions and by fairseq's own."""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.errors import UsageError, UserError
from admin_nmt.host.rank_faults import one_pair
from tests.support.criterions import OURS, RDROP, SMOOTH, STILL
from tests.support.models import on_device
from tests.support.training import train_here

FAIRSEQS = ("--criterion", "label_smoothed_cross_entropy_with_alignment", *SMOOTH)
MODELS = {
    "plain": (),
    "realformer": ("--residual-attention", "all"),
    "pruned": ("--heads-per-layer", "A:3,2"),
    "pruned realformer": ("--residual-attention", "all", "--heads-per-layer", "A:4(2.3),2"),
    "full context": ("--full-context-alignment",),
}


@contextmanager
def guided(task: Any) -> Iterator[None]:
    """The task as with `--load-alignments`."""
    task.cfg.load_alignments = True
    try:
        yield
    finally:
        task.cfg.load_alignments = False


@pytest.fixture
def aligned(task: Any) -> Iterator[dict[str, Any]]:
    """A batch with the alignments that `fairseq-preprocess --align-suffix` has stored."""
    with guided(task):
        task.load_dataset("train")
        dataset = task.dataset("train")
        batch = dataset.collater([dataset[index] for index in range(16)])
        assert len(batch["alignments"]) == batch["ntokens"] - 16
        yield batch
    task.load_dataset("train")


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_loss_and_gradient_are_those_of_fairseqs_criterion(
    build: Callable[..., Any],
    criterion: Callable[..., Any],
    aligned: Any,
    device: str,
    options: Any,
) -> None:
    model = build(*STILL, "--alignment-layer", "0", "--alignment-heads", "2", *options).train()
    model, aligned, found = model.to(device), on_device(aligned, device), []
    for name in (OURS, FAIRSEQS):
        model.zero_grad()
        loss, _, log = criterion(*name, "--alignment-lambda", "0.7")(model, aligned)
        loss.backward()
        figures = [float(value) for value in (loss.detach(), log["loss"], log["alignment_loss"])]
        found.append((figures, {n: p.grad.clone() for n, p in model.named_parameters()}))
    (ours, gradient), (theirs, expected) = found
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert ours[0] == pytest.approx(ours[1] + 0.7 * ours[2], rel=1e-5) and ours[2] > 1
    for name, value in expected.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(
            gradient[name], value, rtol=1e-3, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_every_pass_of_rdrop_is_guided(
    build: Callable[..., Any], criterion: Callable[..., Any], aligned: Any
) -> None:
    """Without dropout all passes are the same; the log is per pass."""
    model = build(*STILL, "--alignment-layer", "1").train()
    once = criterion(*OURS)(model, aligned)[2]
    rdrop = criterion(*RDROP, "--rdrop-passes", "3", "--alignment-lambda", "2")
    loss, _, thrice = rdrop(model, aligned)
    for name in ("loss", "alignment_loss"):
        assert float(thrice[name]) == pytest.approx(float(once[name]), rel=1e-5)
    expected = 3 * (float(once["loss"]) + 2 * float(once["alignment_loss"]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_links_has_the_same_figures(
    build: Callable[..., Any], criterion: Callable[..., Any], aligned: Any, batch: Any
) -> None:
    """Ranks sum their logs by name."""
    model = build("--alignment-layer", "1").eval()
    ours = criterion(*OURS)
    loss, _, log = ours(model, batch)
    assert log.keys() == ours(model, aligned)[2].keys()
    assert log["alignment_loss"] == log["alignment_loss_ntokens"] == 0
    assert loss == log["loss"]
    per_token, _, _ = ours(model, aligned, reduce=False)
    assert per_token.sum().item() == pytest.approx(float(ours(model, aligned)[2]["loss"]), rel=1e-5)


def test_one_pair_of_a_batch_with_links_can_be_trained_on(
    build: Callable[..., Any], criterion: Callable[..., Any], aligned: Any
) -> None:
    """What a rank that is out of memory goes on with; its logs have the names of the other ranks'."""
    model, ours = build("--alignment-layer", "1"), criterion(*OURS)
    loss, _, log = ours(model, one_pair(aligned))
    loss.backward()
    assert log.keys() == ours(model, aligned)[2].keys() and log["alignment_loss"] == 0


def test_another_layer_is_read_if_it_is_asked_for(build: Callable[..., Any], batch: Any) -> None:
    plain, aligned = build().eval(), build("--alignment-layer", "0").eval()
    aligned.load_state_dict(plain.state_dict())
    inputs, found = batch["net_input"], []
    for model in (plain, aligned):
        memory = model.encoder(inputs["src_tokens"], inputs["src_lengths"])
        options = {"encoder_out": memory, "alignment_layer": 1, "alignment_heads": 2}
        found.append(model.decoder(inputs["prev_output_tokens"], **options)[1]["attn"][0])
    torch.testing.assert_close(found[1], found[0])
    assert not torch.allclose(aligned(**inputs)[1]["attn"][0], found[0])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--alignment-layer", "2"), "--alignment-layer 2: the decoder has layers 0 to 1"),
        (("--alignment-layer", "-1"), "--alignment-layer -1"),
        (("--alignment-layer", "0", "--alignment-heads", "5"), "layer 0 has 4 heads"),
        (("--alignment-layer", "1", "--heads-per-layer", "A:4,0"), "layer 1 has 0 heads"),
        (("--alignment-layer", "0", "--alignment-heads", "0"), "--alignment-heads 0"),
        (("--alignment-layer", "0", "--decoder-layerdrop", "0.1"), "with --decoder-layerdrop"),
        (("--alignment-layer", "0", "--no-cross-attention"), "nothing to act on"),
        (("--full-context-alignment",), "needs --alignment-layer"),
    ],
)
def test_models_without_such_heads_are_refused(
    build: Callable[..., Any], options: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        build(*options)


def test_alignments_without_a_layer_are_refused_and_a_layer_without_them_is_named(
    build: Callable[..., Any], criterion: Callable[..., Any], task: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with pytest.raises(UsageError, match="--alignment-lambda"):
        criterion(*OURS, "--alignment-lambda=-1")
    with guided(task), pytest.raises(UsageError, match="needs --alignment-layer N"):
        criterion(*OURS).check_model(build())
    with guided(task):
        ours = criterion(*OURS)
        ours.check_model(build("--alignment-layer", "0"))
        for subset in ("train", "small"):
            ours.task = SimpleNamespace(
                cfg=SimpleNamespace(
                    data="elsewhere", train_subset=subset, source_lang="de", target_lang="en"
                )
            )
            with pytest.raises(UserError, match=rf"elsewhere has no {subset}\.align\.de-en\.idx"):
                ours.check_model(build("--alignment-layer", "0"))
    assert "--alignment-layer without" not in caplog.text
    criterion(*OURS).check_model(build("--alignment-layer", "0"))
    assert "--alignment-layer without --load-alignments" in caplog.text


def reversals(task: Any, rng: random.Random, count: int) -> tuple[dict[str, Any], Tensor]:
    """A batch of reversed random sentences of 20 words, and its links (place in S, place in B * T)."""
    end, first = task.source_dictionary.eos(), task.source_dictionary.nspecial
    sentences = [rng.choices(range(first, first + 20), k=rng.randint(2, 6)) for _ in range(count)]
    batch = task.dataset("train").collater(
        [
            {
                "id": number,
                "source": torch.tensor([*words, end]),
                "target": torch.tensor([*words[::-1], end]),
                "alignment": torch.tensor([[len(words) - 1 - i, i] for i in range(len(words))]),
            }
            for number, words in enumerate(sentences)
        ]
    )
    return batch, batch["alignments"]


def error_rate(model: Any, task: Any) -> float:
    """Alignment error rate on fresh sentences; with one link a word it is the share of wrong ones."""
    batch, links = reversals(task, random.Random(99), 100)
    with torch.no_grad():
        weights = model.eval()(**batch["net_input"])[1]["attn"][0].flatten(0, 1)
    # Words alone: padding has no weight, the end of the sentence is the last place.
    found = weights[links[:, 1], :-1].argmax(-1)
    return (found != links[:, 0]).double().mean().item()


def test_guided_attention_aligns_what_unguided_attention_does_not(
    build: Callable[..., Any], criterion: Callable[..., Any], task: Any
) -> None:
    rates = []
    for weight in ("0", "0.3"):
        sizes = ("--encoder-layers", "1", "--decoder-layers", "1")
        model = build(*STILL, *sizes, "--alignment-layer", "0")
        with guided(task):
            loss_of = criterion(*OURS, "--alignment-lambda", weight)
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        rng = random.Random(5)
        for _ in range(100):
            batch, _ = reversals(task, rng, 64)
            loss, sample_size, _ = loss_of(model.train(), batch)
            optimizer.zero_grad()
            (loss / sample_size).backward()
            optimizer.step()
        rates.append(error_rate(model, task))
    unguided, guided_rate = rates
    assert guided_rate < 0.2 < 0.4 < unguided, rates


def test_a_training_aligns_and_its_checkpoint_says_so(data_bin: Path, tmp_path: Path) -> None:
    """`fairseq-train` as the documentation has it."""
    said = train_here(
        data_bin, "--arch", "admin_transformer_tiny", "--cpu", *OURS,
        "--load-alignments", "--alignment-layer", "0", "--alignment-heads", "2",
        "--alignment-lambda", "1", "--max-tokens", "300", "--optimizer", "radam", "--lr", "5e-3",
        "--max-update", "40", "--dropout", "0", "--save-dir", tmp_path, "--no-epoch-checkpoints",
        "--log-format", "simple", "--log-interval", "4", "--disable-validation",
    )  # fmt: skip
    losses = [float(value) for value in re.findall(r"alignment_loss=([\d.]+)", said)]
    assert losses[-1] < 0.95 * losses[0], losses
    trained = Checkpoint.open(tmp_path / "checkpoint_last.pt")
    assert trained.setting("model", "alignment_layer") == 0
    assert trained.setting("model", "alignment_heads") == 2
