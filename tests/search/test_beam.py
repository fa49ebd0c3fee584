"""The search that evaluate and translate share: hypotheses of fairseq's generator, one line when a GPU is full."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from admin_nmt.errors import UserError
from admin_nmt.search.beam import BeamSearch


@pytest.fixture
def search(build: Callable[..., Any], task: Any) -> BeamSearch:
    """A beam of 3 over a model that was never trained."""
    return BeamSearch([build().eval()], task, "lower --beam", beam=3)


def test_hypotheses_are_those_of_the_generator(
    search: BeamSearch, task: Any, batch: dict[str, Any]
) -> None:
    expected = task.inference_step(search.generator, search.models, batch)
    found = search(batch)
    assert len(found) == len(batch["net_input"]["src_tokens"])
    for ours, theirs in zip(found, expected, strict=True):
        assert [one.tokens.tolist() for one in ours] == [one["tokens"].tolist() for one in theirs]
        assert [one.score for one in ours] == [float(one["score"]) for one in theirs]
        assert len(ours) == 3 and ours[0].score >= ours[1].score >= ours[2].score
        assert all(one.tokens[-1] == task.target_dictionary.eos() for one in ours)


def test_a_limit_on_the_length_holds_for_one_call(
    search: BeamSearch, batch: dict[str, Any]
) -> None:
    def lengths(longest: int | None = None) -> list[int]:
        return [len(one.tokens) for found in search(batch, longest) for one in found]

    before = lengths()
    assert max(lengths(longest=4)) <= 4 + 1 < max(before)
    assert lengths() == before


def test_what_is_no_text_is_known(search: BeamSearch, task: Any) -> None:
    assert task.target_dictionary.eos() in search.silent


def test_a_full_gpu_is_one_line(
    search: BeamSearch, task: Any, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(task, "inference_step", full)
    with pytest.raises(UserError, match="the GPU ran out of memory: lower --beam"):
        search(batch)


@pytest.mark.parametrize("options", [{}, {"beam": 1, "sampling": True}])
def test_probabilities_that_are_not_finite_are_one_line(
    build: Callable[..., Any], task: Any, batch: dict[str, Any], options: dict[str, Any]
) -> None:
    model = build().eval()
    with torch.no_grad():
        model.decoder.layers[0].fc1.weight.fill_(math.nan)
    with pytest.raises(UserError, match="probabilities are NaN or infinite"):
        BeamSearch([model], task, "", **options)(batch)


def test_bart_computes_the_same_after_a_search(
    build: Callable[..., Any], task: Any, batch: dict[str, Any]
) -> None:
    """fairseq leaves it with the size of the beam, which reads every third row of the keys."""
    words = "--arch bart_base --encoder-layers 1 --decoder-layers 1 --share-all-embeddings".split()
    for stack in ("encoder", "decoder"):
        words += [f"--{stack}-embed-dim", "16", f"--{stack}-attention-heads", "2"]
        words += [f"--{stack}-ffn-embed-dim", "16"]
    model = build(*words).eval()
    net_input = {name: value[:6] for name, value in batch["net_input"].items()}
    order = torch.tensor([3, 3, 5])

    def outputs() -> list[Any]:
        encoded = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
        one = BeamSearch([model], task, "", beam=1)({"net_input": net_input}, 5)
        return [
            model(**net_input)[0],
            model.encoder.reorder_encoder_out(encoded, order)["encoder_out"][0],
            torch.cat([found.tokens for (found,) in one]),
        ]

    with torch.no_grad():
        before = outputs()
        three = BeamSearch([model], task, "", beam=3)
        assert all(len(found) == 3 for found in three({"net_input": net_input}, 5))
        torch.testing.assert_close(outputs(), before)
        found = [
            [one.tokens.tolist() for one in some] for some in three({"net_input": net_input}, 5)
        ]
        model.set_beam_size(3)
        expected = task.inference_step(three.generator, [model], {"net_input": net_input})
        assert found == [[one["tokens"].tolist() for one in some] for some in expected]
