"""Additive masks: their values, and that layers share them as long as nothing changes."""

import gc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from admin_nmt.ops import attention
from admin_nmt.ops.attention import attention_bias
from admin_nmt.ops.recording import recording, recording_number

INF = float("inf")


def masks() -> tuple[torch.Tensor, torch.Tensor]:
    padding = torch.tensor([[False, False, True], [False, False, False]])
    return torch.full((3, 3), -INF).triu_(1), padding


def test_both_masks_are_added() -> None:
    future, padding = masks()
    bias = attention_bias(future, padding, torch.float32)
    assert bias is not None and bias.shape == (2, 1, 3, 3)
    assert bias[0, 0].tolist() == [[0, -INF, -INF], [0, 0, -INF], [0, 0, -INF]]
    assert torch.equal(bias[1, 0], future)
    alone = attention_bias(None, padding, torch.float64)
    assert alone is not None and alone.shape == (2, 1, 1, 3) and alone.dtype == torch.float64
    assert attention_bias(None, None, torch.float32) is None


def test_layers_share_it_until_a_mask_changes() -> None:
    future, padding = masks()
    first = attention_bias(future, padding, torch.float32)
    assert attention_bias(future, padding, torch.float32) is first
    for other in (
        (None, padding, torch.float32),
        (future, padding, torch.float64),
        (masks()[0], padding, torch.float32),
        (future, padding.clone(), torch.float32),
    ):
        kept = attention_bias(future, padding, torch.float32)
        changed = attention_bias(*other)
        assert changed is not None and changed is not kept and changed.dtype == other[2]
    padding[1, 2] = True
    after = attention_bias(future, padding, torch.float32)
    assert after is not None and after[1, 0, 2].tolist() == [0, 0, -INF]
    with torch.inference_mode():
        inner = padding.clone()
        before = attention_bias(None, inner, torch.float32)
        inner[1, 1] = True
        after = attention_bias(None, inner, torch.float32)
    assert before is not None and after is not None and not torch.equal(before, after)


def test_what_is_made_in_inference_mode_is_not_kept_for_training() -> None:
    """A sentence may be encoded once, translated in inference mode, and trained on."""
    _, padding = masks()
    with torch.inference_mode():
        inner = attention_bias(None, padding, torch.float32)
    outer = attention_bias(None, padding, torch.float32)
    assert inner is not None and outer is not None and not outer.is_inference()
    assert torch.equal(inner, outer)


def test_it_lives_no_longer_than_its_mask() -> None:
    future, padding = masks()
    attention_bias(future, padding, torch.float32)
    assert padding in attention._biases
    number = len(attention._biases)
    del padding
    gc.collect()
    assert len(attention._biases) == number - 1


def test_a_recording_shares_its_own_and_no_others() -> None:
    """A replay computes what was computed in its recording; a mask from before would stay as it was."""
    future, padding = masks()
    before = attention_bias(future, padding, torch.float32)
    with recording():
        first = attention_bias(future, padding, torch.float32)
        assert attention_bias(future, padding, torch.float32) is first is not before
    with recording():
        assert attention_bias(future, padding, torch.float32) is not first
    assert attention_bias(future, padding, torch.float32) is not first


def test_after_an_inner_recording_the_outer_one_goes_on() -> None:
    with recording():
        outer = recording_number()
        with recording():
            assert recording_number() not in (0, outer)
        assert recording_number() == outer > 0
    assert recording_number() == 0


@pytest.mark.parametrize("recorded", [False, True])
def test_a_model_makes_one_for_each_kind_of_mask(
    build: Callable[..., Any],
    batch: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    recorded: bool,
) -> None:
    made: list[torch.Size] = []
    bias_of = attention._bias
    monkeypatch.setattr(
        attention, "_bias", lambda *masks: made.append(masks[1].shape) or bias_of(*masks)
    )
    model = build(
        "--encoder-layers", "3", "--decoder-layers", "3", "--init-type", "default"
    ).train()
    inputs = batch["net_input"]
    for _ in range(2):
        with recording() if recorded else nullcontext():
            model(**inputs)
        # Of the source's padding, and of the target's with the future.
        assert made == [inputs["src_tokens"].shape, inputs["prev_output_tokens"].shape]
        made.clear()
