"""fairseq's programs with our changes: bf16, batches, whole checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def test_bf16_does_not_ask_for_a_tpu(parse: Callable[..., Any]) -> None:
    assert parse("--bf16").common.tpu is False
    assert parse("--bf16", "--tpu").common.tpu is True
    assert parse().common.bf16 is False


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), max_size=60),
    multiple=st.sampled_from([1, 2, 8]),
    max_tokens=st.integers(20, 100),
)
def test_batches_hold_every_sentence_once(sizes: list[int], multiple: int, max_tokens: int) -> None:
    from fairseq.data import data_utils

    import admin_nmt  # noqa: F401

    vector = np.array(sizes, dtype=np.int64)
    order = np.argsort(vector, kind="stable")
    batches = data_utils.batch_by_size(
        order, lambda i: sizes[i], num_tokens_vec=vector[order], max_tokens=max_tokens,
        required_batch_size_multiple=multiple,
    )  # fmt: skip
    assert [i for batch in batches for i in batch] == order.tolist()
    for batch in batches:
        assert len(batch) * max(sizes[i] for i in batch) <= max_tokens


@pytest.mark.parametrize("ours", [True, False])
def test_only_trainings_of_other_models_lose_their_last_batch(
    ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stock baseline sees the batches that it would see without us."""
    from fairseq.data import data_utils

    from admin_nmt.host import batches

    def get_iterator(trainer: object) -> int:
        sizes = np.full(13, 5)
        order = np.arange(13)
        found = data_utils.batch_by_size(
            order, lambda i: sizes[i], num_tokens_vec=sizes, max_tokens=40,
            required_batch_size_multiple=8,
        )  # fmt: skip
        return sum(map(len, found))

    monkeypatch.setattr(batches, "is_ours", lambda trainer: ours)
    assert batches._stock_batches_for_stock_models(get_iterator)(object()) == (13 if ours else 8)
    assert get_iterator(None) == 13


def test_copied_checkpoint_is_whole_or_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fairseq copies `checkpoint_last.pt` from the file of the epoch; it may be killed in between."""
    from fairseq.file_io import PathManager

    import admin_nmt  # noqa: F401

    source, last = tmp_path / "checkpoint2.pt", tmp_path / "checkpoint_last.pt"
    source.write_bytes(b"second")
    last.write_bytes(b"first")

    class Killed(BaseException):
        pass

    def copy_half(src: str, dst: str) -> None:
        Path(dst).write_bytes(Path(src).read_bytes()[:3])
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", copy_half)
        with pytest.raises(Killed):
            PathManager.copy(str(source), str(last), overwrite=True)
    assert last.read_bytes() == b"first"
    assert PathManager.copy(str(source), str(last), overwrite=True)
    assert last.read_bytes() == b"second"
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name, last.name]
