"""The loss of guided alignment against a loop over links, with its gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_nmt.ops.alignment import guided_alignment_loss
from tests.reference import alignment as reference


def link_weights(links: torch.Tensor) -> torch.Tensor:
    """As fairseq makes them: 1 over the number of links of the target place."""
    _, inverse, counts = links[:, 1].unique(return_inverse=True, return_counts=True)
    return 1 / counts[inverse].float()


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_equals_the_loop_over_links(data: st.DataObject) -> None:
    m, N, S = (data.draw(st.integers(1, size)) for size in (3, 5, 5))
    pair = st.tuples(st.integers(0, S - 1), st.integers(0, N - 1))
    links = data.draw(st.lists(pair, unique=True, max_size=8))
    spread = data.draw(st.sampled_from([1.0, 30.0]))  # 30: weights from 1 to below 1e-20
    scores = torch.randn(m, N, S, dtype=torch.float64, generator=torch.manual_seed(len(links)))
    ours, twin = ((spread * scores).clone().requires_grad_() for _ in range(2))
    index = torch.tensor(links, dtype=torch.long).view(-1, 2)
    found = guided_alignment_loss(ours.softmax(-1), index, link_weights(index).double())
    expected = reference.objective(list(twin.softmax(-1)), links, 1e-8)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    if links:
        found.backward()
        expected.backward()
        torch.testing.assert_close(ours.grad, twin.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_weight_of_zero_has_a_slope_that_its_type_can_hold(
    device: str, dtype: torch.dtype
) -> None:
    scores = torch.tensor([[0.0, 50.0]], device=device, requires_grad=True)
    weights = scores.softmax(-1).to(dtype)
    weights.retain_grad()
    links = torch.tensor([[0, 0]], device=device)
    loss = guided_alignment_loss(weights, links, torch.ones(1, device=device))
    loss.backward()
    assert loss.dtype == torch.float32 and weights[0, 0].item() < 1e-20
    assert weights.grad.isfinite().all() and scores.grad.isfinite().all()
    assert weights.grad[0, 0] < 0 == weights.grad[0, 1]
