"""Batches of a data set for looking at a model, shared out over ranks."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from admin_nmt.data.odd_lines import Warnings
from admin_nmt.errors import LARGEST_SEED, require_seed

logger = logging.getLogger(__name__)


def rank_and_count() -> tuple[int, int]:
    """This process's rank and their number; (0, 1) without torch.distributed."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class Batches:
    """This rank's batches, on the model's device; its length is known."""

    def __init__(self, batches: Iterable, length: int, device: torch.device) -> None:
        self.batches, self.length, self.device = batches, length, device

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        from fairseq import utils

        for sample in islice(self.batches, self.length):
            yield utils.move_to_cuda(sample) if self.device.type == "cuda" else sample


def batches_of(dataset: Any, order: Sequence[int], max_tokens: int) -> list[list[int]]:
    """fairseq's batches of the sentences in `order`.

    A sentence of more than `max_tokens`, where fairseq stops, is a batch of its own.
    """
    numbers = np.asarray(order, dtype=np.int64)
    if not len(numbers):
        return []
    fits = dataset.num_tokens_vec(numbers) <= max_tokens
    batches = dataset.batch_by_size(numbers[fits], max_tokens=max_tokens) if fits.any() else []
    return [*map(list, batches), *([int(number)] for number in numbers[~fits])]


def random_batches(
    task: Any, model: Any, subset: str, max_tokens: int, seed: int, max_batches: int | None = None
) -> Batches:
    """Batches in random order (fairseq sorts sentences by length), the same for any number of
    ranks.

    A pair of which one side is longer than the model's positions is left out, with a warning that
    names its line: a reference cannot be read in pieces.

    Args:
        task: fairseq's translation task over the data.
        model: decides the device and which sentences are too long.
        subset: of the data.
        max_tokens: of one batch; a longer sentence is a batch of its own.
        seed: of the order.
        max_batches: number of batches, of all ranks together; None is all.

    Raises:
        UsageError: `seed` is negative or too large.
    """
    from fairseq import utils
    from fairseq.data import data_utils, iterators

    require_seed(seed)
    # fairseq adds the epoch, 1, and hands the sum to numpy.
    seed %= LARGEST_SEED

    rank, num_ranks = rank_and_count()
    if subset not in task.datasets:
        task.load_dataset(subset)
    dataset = task.dataset(subset)
    # As fairseq's `get_batch_iterator`, whose seed is that of the first epoch.
    with data_utils.numpy_seed(seed + 1):
        order = dataset.ordered_indices()
    limits = utils.resolve_max_positions(task.max_positions(), model.max_positions())
    order, too_long = dataset.filter_indices_by_size(order, limits)
    if rank == 0:
        _warn_of(sorted(too_long), dataset, limits, subset)
    epoch = iterators.EpochBatchIterator(
        dataset=dataset,
        collate_fn=dataset.collater,
        batch_sampler=batches_of(dataset, order, max_tokens),
        seed=seed,
        num_shards=num_ranks,
        shard_id=rank,
    ).next_epoch_itr(shuffle=True)
    length = len(epoch)
    if max_batches is not None:
        length = min(length, len(range(rank, max_batches, num_ranks)))
    return Batches(epoch, length, next(model.parameters()).device)


def _warn_of(too_long: Sequence[int], dataset: Any, limits: Sequence[int], subset: str) -> None:
    warnings = Warnings(logger)
    for number in too_long:
        source, target = map(int, dataset.size(number))
        warnings.add(
            "too long",
            f"line {number + 1} of subset {subset} is left out: it has {source} source and "
            f"{target} target tokens, the model reads {limits[0]} and {limits[1]}",
        )
    warnings.close()
