"""What the tests of fused losses draw at random."""

from typing import Any

from hypothesis import strategies as st

from admin_nmt.ops.label_smoothing import CONVENTIONS

#: Shapes of features and vocabulary, padding, chunks, and label smoothing.
FUSED_LOSS: dict[str, st.SearchStrategy[Any]] = {
    "shape": st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple),
    "D": st.integers(1, 5),
    "V": st.integers(2, 9),
    "padding": st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    "chunk_tokens": st.integers(1, 20),
    "over": st.sampled_from(CONVENTIONS),
    "epsilon": st.sampled_from([0.0, 0.2]),
    "leaves_out": st.booleans(),
    "seed": st.integers(0, 99),
}
