"""Resumed runs are the uninterrupted ones, at any update of any epoch; finished ones stay so."""

import logging
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fairseq.data import FairseqDataset
from fairseq.data.iterators import CountingIterator, GroupedIterator
from fairseq.tasks import FairseqTask
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.host.data import DataError
from admin_nmt.host.exact_resume import _MARK, Split, position_in
from tests.support.in_process import run_fairseq
from tests.support.training import COMMON, require_equal, train, train_here, weights

#: Of about five epochs of eight batches.
UPDATES = 38
SETTINGS = {
    "plain": (),
    "update-freq": ("--update-freq", "2"),
    "buckets": ("--num-batch-buckets", "2"),
    "curriculum": ("--curriculum", "2"),
    "rdrop": ("--criterion", "label_smoothed_cross_entropy_rdrop"),
    "realformer": ("--residual-attention", "all", "--init-type", "admin-log"),
    "bf16": ("--bf16",),
    "workers": ("--num-workers", "1"),
    "epoch-batches": ("--update-epoch-batch-itr", "True"),
    "epoch-seeds": ("--update-ordered-indices-seed",),
}


def stops(seed: str) -> list[int]:
    """Updates after which a run is ended: inside the first epoch, and anywhere later."""
    rng = random.Random(seed)
    return [rng.randint(2, 6), rng.randint(9, UPDATES - 1)]


#: Resumed by tests/criterions/test_training_with_rdrop.py, tests/train/test_realformer_training.py and
#: test_subword_sampling.py too.
RESUMED_ELSEWHERE = ("rdrop", "realformer", "workers", "buckets")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name in RESUMED_ELSEWHERE))
        for name in SETTINGS
    ],
)
def test_resumed_in_any_epoch(name: str, data_bin: Path, tmp_path: Path) -> None:
    options = SETTINGS[name]
    train(data_bin, tmp_path / "whole", UPDATES, *options)
    for stop in (*stops(name), UPDATES):
        train(data_bin, tmp_path / "parts", stop, *options)
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_the_clock_of_a_resumed_run_counts_from_its_start(data_bin: Path, tmp_path: Path) -> None:
    from fairseq.logging import metrics

    for updates in (3, 5):  # within the first epoch
        train(data_bin, tmp_path, updates)
        clock = metrics.get_meter("default", "wall")
        assert clock.elapsed_time > 0 and clock.sum == 0


def test_resumed_at_the_end_of_an_epoch_when_more_are_asked_for(
    data_bin: Path, tmp_path: Path
) -> None:
    train(data_bin, tmp_path / "whole", 1000, "--max-epoch", "4")
    for epochs in ("1", "3", "4"):
        train(data_bin, tmp_path / "parts", 1000, "--max-epoch", epochs)
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def with_test_pairs(data_bin: Path, folder: Path, subset: str) -> Path:
    """A copy of the data folder with its test pairs as the training set `subset`."""
    data = shutil.copytree(data_bin, folder)
    for lang in ("de", "en"):
        for kind in ("bin", "idx"):
            name = f"de-en.{lang}.{kind}"
            shutil.copy(data_bin / f"test.{name}", data / f"{subset}.{name}")
    return data


def test_resumed_with_several_training_shards(data_bin: Path, tmp_path: Path) -> None:
    data = f"{data_bin}:{with_test_pairs(data_bin, tmp_path / 'second', 'train')}"
    train(data, tmp_path / "whole", 24)
    for stop in (5, 13, 24):
        train(data, tmp_path / "parts", stop)
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_resumed_with_two_training_sets_one_of_them_upsampled(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = with_test_pairs(data_bin, tmp_path / "data", "train1")
    options = ("--upsample-primary", "3")
    with caplog.at_level(logging.INFO):
        train(data, tmp_path / "whole", 30, *options)
    read = {text.split()[-2] for text in caplog.messages if text.endswith(" examples")}
    assert read == {"200", "20"}
    for stop in (7, 26, 30):
        train(data, tmp_path / "parts", stop, *options)
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    train(data, tmp_path / "other", 30, "--upsample-primary", "1")
    state = [
        load_checkpoint_file(tmp_path / name / "checkpoint_last.pt")["extra_state"][
            "train_iterator"
        ]
        for name in ("parts", "other")
    ]
    assert state[0]["epoch"] < state[1]["epoch"]


def test_a_finished_run_stays_as_it_is(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(data_bin, tmp_path, 10)
    last = tmp_path / "checkpoint_last.pt"
    before = last.read_bytes()
    with caplog.at_level(logging.INFO):
        run_fairseq("fairseq-train", data_bin, *COMMON, "--save-dir", tmp_path, "--max-update", 10)
    assert "nothing left to train: 10 updates have been made (--max-update 10)" in caplog.text
    assert last.read_bytes() == before
    train(data_bin, tmp_path, 11)
    assert load_checkpoint_file(last)["optimizer_history"][-1]["num_updates"] == 11


def test_update_checkpoints_at_the_end_of_an_epoch_are_written(
    data_bin: Path, tmp_path: Path
) -> None:
    train(
        data_bin, tmp_path, 1000, "--max-epoch", "2", "--save-interval-updates", "1",
        "--keep-interval-updates", "3",
    )  # fmt: skip
    last = load_checkpoint_file(tmp_path / "checkpoint_last.pt")["optimizer_history"][-1][
        "num_updates"
    ]
    found = sorted(int(p.stem.split("_")[2]) for p in tmp_path.glob("checkpoint_*_*.pt"))
    assert found == [last - 2, last - 1, last]
    newest = load_checkpoint_file(next(tmp_path.glob(f"checkpoint_2_{last}.pt")))
    require_equal(newest["model"], weights(tmp_path))


def last(folder: Path) -> dict[str, Any]:
    """The state of the training iterator in the last checkpoint."""
    state = load_checkpoint_file(folder / "checkpoint_last.pt")
    found: dict[str, Any] = state["extra_state"]["train_iterator"]
    return found


@pytest.mark.parametrize("stop", [1, 5])
def test_another_update_freq_inside_an_epoch(data_bin: Path, tmp_path: Path, stop: int) -> None:
    """Of six batches: 1 + 4 + 1 and 5 + 1 are one update more than six have groups of four."""
    sizes = ("--max-tokens", "1000", "--batch-size", "34", "--required-batch-size-multiple", "1")
    given = [*COMMON, *sizes, "--save-dir", tmp_path, "--max-epoch", "2"]
    given.remove("--no-epoch-checkpoints")
    train_here(data_bin, *given, "--max-update", stop)
    assert (last(tmp_path)["iterations_in_epoch"], last(tmp_path)["num_batches"]) == (stop, 6)
    log = train_here(data_bin, *given, "--update-freq", "4")
    assert [log.count(f"begin training epoch {epoch}\n") for epoch in (1, 2, 3)] == [1, 1, 0]
    state = load_checkpoint_file(tmp_path / "checkpoint1.pt")
    rest = {1: 2, 5: 1}[stop]
    assert state["optimizer_history"][-1]["num_updates"] == stop + rest
    assert last(tmp_path)["epoch"] == 3 and last(tmp_path)["iterations_in_epoch"] == 0


@given(st.data(), st.integers(1, 40), st.integers(1, 9), st.booleans())
def test_groups_of_the_rest_of_an_epoch(
    data: st.DataObject, length: int, size: int, skip: bool
) -> None:
    done = data.draw(st.integers(0, length - 1))
    batches = CountingIterator(range(done, length), start=done, total=length)
    groups = GroupedIterator(batches, size, skip_remainder_batch=skip)
    found = list(groups)
    assert not groups.has_next() and not batches.has_next()
    left = len(range(done, length))
    if skip and (done == 0 or left >= size):
        left -= left % size
    assert [batch for group in found for batch in group] == list(range(done, done + left))
    assert all(len(group) == size for group in found[:-1])
    if done:  # fairseq's loop over an epoch needs an update
        assert found


def test_larger_batches_inside_an_epoch(data_bin: Path, tmp_path: Path) -> None:
    given = (data_bin, *COMMON, "--save-dir", tmp_path)
    train_here(*given, "--max-tokens", "150", "--max-update", "9")
    before = last(tmp_path)
    assert before["iterations_in_epoch"] == 9
    log = train_here(*given, "--max-tokens", "300", "--max-update", "10")
    after = last(tmp_path)
    assert after["num_batches"] <= 9
    position = 9 * after["num_batches"] // before["num_batches"]
    assert f"batch 9 of a rank becomes {position}, updates sum other batches" in log
    assert after["iterations_in_epoch"] == position + 1


SPLITS = st.builds(Split, st.integers(1, 1000), st.integers(1, 16), st.booleans())


@given(st.data(), SPLITS, SPLITS)
def test_converted_positions_are_the_same_share(
    data: st.DataObject, then: Split, now: Split
) -> None:
    position = data.draw(st.integers(0, max(then.length - 1, 0)))
    found = position_in(now, position, then)
    assert 0 <= found <= max(now.length - 1, 0)
    before = position * then.ranks / then.batches
    after = found * now.ranks / now.batches
    assert after <= before + 1e-9
    assert before - after < now.ranks / now.batches + 1e-9 or found == max(now.length - 1, 0)
    if then.batches == now.batches:  # no batch is left out
        assert found * now.ranks <= position * then.ranks
    assert position_in(then, position, then) == position


class Tokens(FairseqDataset):
    """Sentences of five tokens, which all batches hold in order."""

    can_reuse_epoch_itr_across_epochs = True

    def __init__(self, count: int) -> None:
        self.sizes = np.full(count, 5)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> int:
        return index

    def num_tokens(self, index: int) -> int:
        return 5

    def num_tokens_vec(self, indices: np.ndarray) -> np.ndarray:
        return self.sizes[indices]

    def size(self, index: int) -> int:
        return 5

    def collater(self, samples: list[int]) -> list[int]:
        return samples


@pytest.mark.parametrize("anew", [False, True], ids=["reused", "update-epoch-batch-itr"])
@pytest.mark.parametrize(
    ("before", "after", "position", "converted"),
    [
        ((150, 1), (75, 2), 6, 6),
        ((75, 2), (150, 1), 6, 6),
        ((150, 1), (150, 2), 8, 4),
        ((150, 2), (150, 1), 3, 6),
        ((150, 1), (300, 1), 8, 4),
        ((150, 1), (150, 1), 7, 7),
    ],
)
def test_positions_with_other_batches_on_other_ranks(
    before: tuple[int, int],
    after: tuple[int, int],
    position: int,
    converted: int,
    anew: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """300 sentences of 5 tokens; recipes halve --max-tokens on twice the number of ranks."""

    def iterator(max_tokens: int, ranks: int) -> Any:
        task = FairseqTask(cfg=None)
        setattr(task, _MARK, True)
        return task.get_batch_iterator(
            Tokens(300), max_tokens=max_tokens, num_shards=ranks, update_epoch_batch_itr=anew
        )

    first, second = iterator(*before), iterator(*after)
    epoch = first.next_epoch_itr(shuffle=False)
    for _ in range(position):
        next(epoch)
    second.load_state_dict(first.state_dict())
    assert second.iterations_in_epoch == converted
    assert caplog.text.count("updates sum other batches") == (before != after)
    rest = list(second.next_epoch_itr(shuffle=False))
    assert rest and len(rest) == len(second) - converted


def test_checkpoints_without_the_number_of_batches_count_those_of_ranks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = FairseqTask(cfg=None)
    setattr(task, _MARK, True)
    iterator = task.get_batch_iterator(Tokens(300), max_tokens=150, num_shards=2)
    state = {"version": 2, "epoch": 1, "iterations_in_epoch": 6, "shuffle": True}
    iterator.load_state_dict(state | {"num_shards": 1})
    assert iterator.iterations_in_epoch == 3
    assert caplog.text.count("updates sum other batches") == 1


def test_a_run_whose_time_is_over_stays_as_it_is(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = tmp_path / "checkpoint_last.pt"
    train(data_bin, tmp_path, 10, "--stop-time-hours", "1e-6")
    assert load_checkpoint_file(last)["optimizer_history"][-1]["num_updates"] == 1
    before = last.read_bytes()
    with caplog.at_level(logging.INFO):
        train(data_bin, tmp_path, 10, "--stop-time-hours", "1e-6")
    assert "(--stop-time-hours 1e-06)" in caplog.text
    assert last.read_bytes() == before
    train(data_bin, tmp_path, 10)
    assert load_checkpoint_file(last)["optimizer_history"][-1]["num_updates"] == 10


def test_all_training_shards_are_looked_for_before_the_first_epoch(
    data_bin: Path, tmp_path: Path
) -> None:
    none, empty = tmp_path / "none", tmp_path / "empty"
    with pytest.raises(DataError, match=f"data folder {none} does not exist"):
        train(f"{data_bin}:{none}", tmp_path / "run", 20)
    assert not (tmp_path / "run" / "checkpoint_last.pt").exists()
    empty.mkdir()
    with pytest.raises(DataError, match=f"split 'train' of de-en is not in {empty}$"):
        train(f"{data_bin}:{empty}", tmp_path / "run", 20)


def test_a_checkpoint_without_the_optimizer_is_named(
    data_bin: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings(*options: str) -> list[str]:
        caplog.clear()
        train(data_bin, tmp_path / "run", 3, "--no-save-optimizer-state", *options)
        return [text for text in caplog.messages if "no state of the optimizer" in text]

    assert not warnings()
    last = tmp_path / "run" / "checkpoint_last.pt"
    (line,) = warnings()
    assert line.startswith(f"{last} holds no state") and "after 3 updates" in line
    assert not warnings("--reset-optimizer")
    last.rename(tmp_path / "other.pt")
    assert not warnings("--restore-file", str(tmp_path / "other.pt"))
