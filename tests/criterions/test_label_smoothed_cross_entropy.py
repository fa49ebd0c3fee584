"""The fused criterion is fairseq's `label_smoothed_cross_entropy`, for any model with a decoder."""

import copy
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from admin_nmt.criterions.output_layer import linear_output_layer, log_probabilities
from admin_nmt.ops.label_smoothing import CONVENTIONS
from tests.support.criterions import OURS, STILL, STOCK
from tests.support.models import on_device

ARCHS = {
    "ours, tied": ("--share-all-embeddings", *STILL),
    "ours, untied": STILL,
    "fairseq transformer": (
        "--arch", "transformer_tiny", "--share-decoder-input-output-embed", *STILL,
    ),
    "lstm": ("--arch", "lstm", "--dropout", "0"),
    "lstm, tied": (
        "--arch", "lstm", "--decoder-embed-dim", "512", "--decoder-out-embed-dim", "512",
        "--share-decoder-input-output-embed", "--dropout", "0",
    ),
    "fconv": ("--arch", "fconv_iwslt_de_en", "--dropout", "0"),
}  # fmt: skip


def losses(criterion: Any, model: Any, sample: Any) -> tuple[float, float, list[torch.Tensor]]:
    """Loss, nll and the gradients of all parameters."""
    model.zero_grad()
    loss, _, log = criterion(model, sample)
    loss.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return loss.item(), float(log["nll_loss"]), gradients


@pytest.mark.parametrize("name", ARCHS)
def test_loss_and_gradients_are_fairseqs(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, device: str, name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    model, batch = build(*ARCHS[name]).to(device), on_device(batch, device)
    model.train()
    with caplog.at_level(logging.WARNING):
        found = losses(criterion(*OURS), model, batch)
    expected = losses(criterion(*STOCK), model, batch)
    assert ("not a linear map" in caplog.text) == (name == "fconv")
    assert found[:2] == pytest.approx(expected[:2], rel=1e-5)
    assert len(found[2]) == len(expected[2]) > 5
    largest = max(float(gradient.abs().max()) for gradient in expected[2])
    for mine, theirs in zip(found[2], expected[2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6 * largest)


def test_adaptive_softmax_takes_the_plain_path_and_says_so_once(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """fairseq's criterion gives the same loss but fails in the backward pass."""
    model = build("--adaptive-softmax-cutoff", "10,20", *STILL)
    model.train()
    ours = criterion(*OURS)
    with caplog.at_level(logging.WARNING):
        first = losses(ours, model, batch)
        losses(ours, model, batch)
    assert caplog.text.count("not a linear map") == 1
    assert len(first[2]) == len(list(model.parameters()))
    with torch.no_grad():
        expected, _, log = criterion(*STOCK)(model, batch)
    assert first[:2] == pytest.approx((expected.item(), float(log["nll_loss"])), rel=1e-5)
    parameter = model.decoder.adaptive_softmax.tail[0][0].weight
    index = divmod(int(parameter.grad.abs().argmax()), parameter.shape[1])
    step, changed = 1e-2, []
    for sign in (1, -1):
        with torch.no_grad():
            parameter[index] += sign * step
            changed.append(ours(model, batch)[0].item())
            parameter[index] -= sign * step
    slope = (changed[0] - changed[1]) / (2 * step)
    assert slope == pytest.approx(float(parameter.grad[index]), rel=1e-2)


@pytest.mark.parametrize("tie_proj", [False, True])
def test_an_adaptive_softmax_may_be_tied_to_adaptive_input(tie_proj: bool) -> None:
    """Language models with `--adaptive-input --tie-adaptive-weights`."""
    from fairseq.modules import AdaptiveInput, AdaptiveSoftmax

    inputs = AdaptiveInput(60, 1, 16, 4, 16, [20, 40])
    softmax = AdaptiveSoftmax(60, 16, [20, 40], 0.0, 4, inputs, tie_proj)
    model = SimpleNamespace(decoder=SimpleNamespace(adaptive_softmax=softmax, output_layer=None))
    features = torch.randn(3, 5, 16)
    with torch.no_grad():
        expected = softmax.get_log_prob(features, None)
    torch.testing.assert_close(log_probabilities(model, (features,)), expected)


@pytest.mark.parametrize("training", [True, False])
def test_quantised_weights_are_no_linear_output_layer(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    """`--quant-noise-scalar` of fairseq's Transformer: the loss sees the noise on the output layer too."""
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)  # fairseq's 8 bits want a GPU
    for seed in range(3):
        model = build("--arch", "transformer_tiny", "--quant-noise-scalar", "0.5", seed=seed)
        assert linear_output_layer(model.train(training).decoder) is None
        for dtype in (torch.float16, torch.bfloat16):
            assert linear_output_layer(build(seed=seed).to(dtype).decoder) is not None


@pytest.mark.parametrize(
    "options",
    [("--ignore-prefix-size", "2"), ("--report-accuracy",), ("--sentence-avg",)],
    ids=lambda options: options[0],
)
def test_options_mean_what_they_mean_in_fairseq(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, options: tuple[str, ...]
) -> None:
    model = build(*STILL)
    model.train()
    loss, size, log = criterion(*OURS, *options)(model, batch)
    expected, expected_size, expected_log = criterion(*STOCK, *options)(model, batch)
    assert size == expected_size
    assert log.keys() == expected_log.keys()
    for name, value in expected_log.items():
        assert float(log[name]) == pytest.approx(float(value), rel=1e-5), name
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("over", CONVENTIONS)
def test_the_mass_of_label_smoothing_goes_where_the_option_says(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any, over: str
) -> None:
    """Shared by all types or by all but the true one, in the fused loss and in the plain one."""
    model = build(*STILL).train()
    ours = criterion(*OURS, "--label-smoothing", "0.4", "--label-smoothing-over", over)
    lprobs = model(**batch["net_input"])[0].double().log_softmax(-1)
    target = batch["target"][..., None]
    likelihood, all_types = lprobs.gather(-1, target), lprobs.sum(-1, keepdim=True)
    num_types = lprobs.shape[-1]
    shared = {"all": all_types / num_types, "others": (all_types - likelihood) / (num_types - 1)}
    each = -(0.6 * likelihood + 0.4 * shared[over])[target != 1]
    for reduce in (True, False):
        loss = ours(model, batch, reduce)[0].sum()
        assert loss.item() == pytest.approx(each.sum().item(), rel=1e-5)


def test_unreduced_loss_is_per_token_and_zero_at_padding(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    model = build(*STILL)
    each, _, log = criterion(*OURS)(model, batch, reduce=False)
    total, _, expected = criterion(*OURS)(model, batch)
    assert each.shape == (batch["target"].numel(),)
    assert (each[batch["target"].view(-1) == 1] == 0).all()
    assert each.sum().item() == pytest.approx(total.item(), rel=1e-5)
    assert float(log["nll_loss"]) == pytest.approx(float(expected["nll_loss"]), rel=1e-5)


def test_a_prefix_may_be_longer_than_all_sentences_of_a_batch(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    ours = criterion(*OURS, "--ignore-prefix-size", "50", "--report-accuracy")
    for options in ((), ("--adaptive-softmax-cutoff", "10,20")):
        loss, _, log = ours(build(*options), batch)
        loss.backward()
        assert loss == 0 and log["total"] == 0 and log["n_correct"] == 0
    assert ours(build(), batch, reduce=False)[0].shape == (0,)


def test_the_batch_is_left_as_it_was(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    before = copy.deepcopy(batch["net_input"])
    criterion(*OURS)(build(), batch)
    for name, value in before.items():
        assert torch.equal(batch["net_input"][name], value)


def test_the_decoder_keeps_its_output_layer(
    build: Callable[..., Any], criterion: Callable[..., Any], batch: Any
) -> None:
    """Also after a failure in the middle of the forward pass."""
    model = build()
    criterion(*OURS)(model, batch)
    logits = model(**batch["net_input"])[0]
    assert logits.dim() == 3
    with pytest.raises(TypeError):
        criterion(*OURS)(model, {**batch, "net_input": {**batch["net_input"], "unknown": 1}})
    assert "output_layer" not in model.decoder.__dict__
    assert not list(criterion(*OURS).parameters())


def test_bad_options_are_one_line(criterion: Callable[..., Any]) -> None:
    from admin_nmt.errors import UsageError

    for options, message in (
        (("--label-smoothing", "1"), "--label-smoothing must be at least 0 and below 1, not 1"),
        (("--label-smoothing", "-0.1"), "--label-smoothing must be at least 0"),
        (("--ignore-prefix-size", "-1"), "--ignore-prefix-size must be at least 0, not -1"),
    ):
        with pytest.raises(UsageError, match=message):
            criterion(*OURS, *options)


def test_a_model_without_decoder_is_refused(criterion: Callable[..., Any], batch: Any) -> None:
    from fairseq.models import FairseqEncoderModel

    from admin_nmt.errors import UsageError

    class Encoder(torch.nn.Module):
        pass

    model = FairseqEncoderModel.__new__(FairseqEncoderModel)
    torch.nn.Module.__init__(model)
    model.encoder = Encoder()
    with pytest.raises(UsageError, match="FairseqEncoderModel has no decoder that predicts tokens"):
        criterion(*OURS).check_model(model)
    with pytest.raises(UsageError, match="FairseqEncoderModel has no decoder that predicts tokens"):
        criterion(*OURS)(model, batch)


def test_a_decoder_that_changes_its_logits_gets_the_plain_loss(
    build: Callable[..., Any],
    criterion: Callable[..., Any],
    batch: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Adding a dimension and halving the logits can only be seen in the forward pass."""
    model = build().eval()
    forward = type(model.decoder).forward

    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        logits, extra = forward(self, *args, **kwargs)
        return logits * torch.full((2,), 0.5)[:1], extra

    monkeypatch.setattr(type(model.decoder), "forward", changed)
    ours, stock = criterion(*OURS), criterion(*STOCK)
    for _ in range(2):
        assert losses(ours, model, batch)[0] == pytest.approx(losses(stock, model, batch)[0])
