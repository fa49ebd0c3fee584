"""Batches of a data set for looking at a model, shared out over ranks."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch

from admin_nmt.errors import UsageError


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


def random_batches(
    task: Any, model: Any, subset: str, max_tokens: int, seed: int, max_batches: int | None = None
) -> Batches:
    """Batches in random order (fairseq sorts sentences by length), the same for any number of
    ranks.

    Args:
        task: fairseq's translation task over the data.
        model: decides the device and which sentences are too long.
        subset: of the data.
        max_tokens: of one batch.
        seed: of the order.
        max_batches: so many of all ranks together; None is all.

    Raises:
        UsageError: a sentence has more than `max_tokens`, or `seed` is negative.
    """
    from fairseq import utils

    if seed < 0:
        raise UsageError(f"--seed {seed}: give a number of at least 0")

    rank, num_ranks = rank_and_count()
    if subset not in task.datasets:
        task.load_dataset(subset)
    try:
        epoch = task.get_batch_iterator(
            dataset=task.dataset(subset),
            max_tokens=max_tokens,
            max_positions=utils.resolve_max_positions(task.max_positions(), model.max_positions()),
            ignore_invalid_inputs=True,
            seed=seed,
            num_shards=num_ranks,
            shard_id=rank,
            disable_iterator_cache=True,
        ).next_epoch_itr(shuffle=True)
    except AssertionError as error:
        if "max_tokens" not in str(error):
            raise
        raise UsageError(
            f"--max-tokens {max_tokens} is less than the longest sentence of subset {subset}"
        ) from error
    length = len(epoch)
    if max_batches is not None:
        length = min(length, len(range(rank, max_batches, num_ranks)))
    return Batches(epoch, length, next(model.parameters()).device)
