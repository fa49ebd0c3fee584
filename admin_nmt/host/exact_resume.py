"""A resumed run of our models sees the batches that the uninterrupted one would have seen.

fairseq makes the batches of a data set once, shuffles them anew for every epoch, and draws the order
of equally long sentences with the number of the epoch in which the *process* started. So a run that
was resumed in epoch 2 has other batches from its first update on. Here they are always made as for
epoch 1; the shuffle keeps following the epoch. Data sets that fairseq batches anew for every epoch
(several training shards, `--update-epoch-batch-itr`) resume exactly as they are.

`--curriculum N` begins to shuffle after N epochs; fairseq's reused data loader keeps the choice of the
first epoch, so that only a resumed run would.

A checkpoint counts batches per rank. On another number of ranks, or with batches of another size
(`--max-tokens`), the count is converted, so that about the same part of the epoch is left; the
batches of one update then differ, and a line says so. With another `--update-freq` it stays: the
rest of the epoch is summed in groups of the new size.

A run that has reached `--max-update` or `--stop-time-hours` makes no further update when it is started
again.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from admin_nmt.host.fine_tuning import begins_to_finetune
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

logger = logging.getLogger(__name__)

_MARK = "_admin_nmt_exact_resume"
_SEED_FOLLOWS = "_admin_nmt_seed_follows_epoch"


def _marking_the_task(get_train_iterator: Callable) -> Callable:
    """The task is told whether it serves one of our models, and whether its seed is that of the run
    plus the epoch (`--update-ordered-indices-seed`)."""

    @wraps(get_train_iterator)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.task.__dict__[_MARK] = is_ours(self)
        self.task.__dict__[_SEED_FOLLOWS] = self.cfg.dataset.update_ordered_indices_seed
        return get_train_iterator(self, *args, **kwargs)

    return wrapped


def _as_for_epoch_one(get_batch_iterator: Callable) -> Callable:
    """A resumed run makes its batches as the uninterrupted one did: as for epoch 1, not with the
    number of the epoch in which the process started."""

    @wraps(get_batch_iterator)
    def wrapped(self: Any, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.__dict__.get(_MARK):
            return get_batch_iterator(self, dataset, *args, **kwargs)
        epoch = kwargs.get("epoch", 1)
        reused = not (kwargs.get("disable_iterator_cache") or kwargs.get("update_epoch_batch_itr"))
        reused = reused and self.can_reuse_epoch_itr(dataset)
        made_before = dataset in self.dataset_to_epoch_iter
        if reused:
            kwargs["epoch"] = 1
            if epoch > 1 and self.__dict__.get(_SEED_FOLLOWS):
                kwargs["seed"] -= epoch - 1
        iterator = get_batch_iterator(self, dataset, *args, **kwargs)
        setattr(iterator, _MARK, True)
        if reused and not made_before:
            iterator.epoch = max(epoch, 1)
            dataset.set_epoch(epoch)
        return iterator

    return wrapped


def _with_ranks(state_dict: Callable) -> Callable:
    """Checkpoints keep the number of ranks whose batches they count, and of all batches in the epoch."""

    @wraps(state_dict)
    def wrapped(self: Any) -> dict[str, Any]:
        state = state_dict(self)
        if not hasattr(self, _MARK):
            return state
        return state | {"num_shards": self.num_shards, "num_batches": len(self.frozen_batches)}

    return wrapped


def _converted(load_state_dict: Callable) -> Callable:
    """On another number of ranks, or where an epoch has another number of batches, the position in it is
    converted, and one line says so."""

    @wraps(load_state_dict)
    def wrapped(self: Any, state: dict[str, Any]) -> None:
        if hasattr(self, _MARK):
            now = Split(len(self.frozen_batches), self.num_shards, self.skip_remainder_batch)
            # Checkpoints of earlier versions have no number of batches.
            then = Split(state.get("num_batches", now.batches), state.get("num_shards", now.ranks))
            position = state.get("iterations_in_epoch", 0)
            # At the end of an epoch, the number of batches may be that of another shard of the data.
            if then.ranks != now.ranks or (position and then.batches != now.batches):
                state = state | {"iterations_in_epoch": position_in(now, position, then)}
                logger.warning(
                    f"the checkpoint was written by {then.ranks} rank(s), with {then.batches} batches in "
                    f"the epoch, and is continued on {now.ranks}, with {now.batches}: batch {position} of "
                    f"a rank becomes {state['iterations_in_epoch']}, updates sum other batches from here on"
                )
        load_state_dict(self, state)

    return wrapped


def _shuffled_as_asked(get_iterator: Callable) -> Callable:
    """`--curriculum N` begins to shuffle after N epochs also where a data loader is reused."""

    @wraps(get_iterator)
    def wrapped(self: Any, epoch: int, shuffle: bool, *args: Any, **kwargs: Any) -> Any:
        if hasattr(self, _MARK) and self.reuse_dataloader and self.dataloader is not None:
            self.epoch_batch_sampler.shuffle = shuffle
        return get_iterator(self, epoch, shuffle, *args, **kwargs)

    return wrapped


@dataclass(frozen=True)
class Split:
    """An epoch's batches, split over ranks.

    Attributes:
        batches: of all ranks together, at least 1.
        ranks: at least 1.
        drops_last: whether each rank leaves its last batch out (`--skip-remainder-batch`).
    """

    batches: int
    ranks: int
    drops_last: bool = False

    @property
    def length(self) -> int:
        """Batches of each rank."""
        return math.ceil(self.batches / self.ranks) - self.drops_last


def position_in(now: Split, position: int, then: Split) -> int:
    """Batches that each rank of `now` has behind it where each of `then` had `position`.

    The same share of all batches, rounded down: where an epoch has as many batches as before, none is
    left out. At most `now.length - 1`, because an epoch that was saved in its middle has not ended.
    """
    share = position * then.ranks * now.batches // (then.batches * now.ranks)
    return min(share, max(now.length - 1, 0))


def _whole_epochs(init: Callable) -> Callable:
    """Resuming inside an epoch with another `--update-freq`, or at a converted position, makes as many
    updates as the rest of the epoch has groups of batches. fairseq counts those of a whole epoch, which
    may be one fewer: it then trains the epoch a second time, or ends in an `UnboundLocalError`."""

    @wraps(init)
    def wrapped(
        self: Any, iterable: Any, chunk_size: int, skip_remainder_batch: bool = False
    ) -> None:
        done = getattr(iterable, "n", 0)
        if not done:
            init(self, iterable, chunk_size, skip_remainder_batch)
            return
        left = len(iterable) - done
        if skip_remainder_batch and left > chunk_size:  # else the epoch ends with a smaller update
            left -= left % chunk_size
            iterable.take(done + left)
        init(self, iterable, chunk_size)
        self.total = self.n + math.ceil(left / chunk_size)

    return wrapped


class NothingLeft:
    """In place of the training iterator. No limit of epochs lets it start: not even infinity, as
    every comparison with NaN is false."""

    next_epoch_idx = math.nan


def _unless_over(load_checkpoint: Callable) -> Callable:
    """A run that has reached `--max-update` or `--stop-time-hours` makes no further update when it is started
    again. One that begins anew with the weights of another (`--finetune-from-model`, `--reset-optimizer`)
    has taken no time yet; fairseq counts that of the other training."""

    @wraps(load_checkpoint)
    def wrapped(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
        anew = cfg.reset_optimizer or begins_to_finetune(cfg, trainer)
        extra_state, epoch_itr = load_checkpoint(cfg, trainer, **kwargs)
        updates, most = trainer.get_num_updates(), trainer.cfg.optimization.max_update or math.inf
        if updates >= most and is_ours(trainer):
            logger.info(
                f"nothing left to train: {updates} updates have been made (--max-update {most})"
            )
            return extra_state, NothingLeft()
        if anew and is_ours(trainer):
            trainer._previous_training_time = 0.0
            return extra_state, epoch_itr
        # The time in the checkpoint, not the clock: it is the same on all ranks.
        hours = (extra_state or {}).get("previous_training_time", 0) / 3600
        if 0 < trainer.cfg.optimization.stop_time_hours < hours and is_ours(trainer):
            logger.info(
                f"nothing left to train: it has taken {hours:.6g} hours "
                f"(--stop-time-hours {trainer.cfg.optimization.stop_time_hours:g})"
            )
            return extra_state, NothingLeft()
        return extra_state, epoch_itr

    return wrapped


_ITERATOR = "fairseq.data.iterators:EpochBatchIterator"
PATCHES = (
    Patch("fairseq.tasks:FairseqTask", "get_batch_iterator", _as_for_epoch_one, Scope.OURS),
    Patch("fairseq.trainer:Trainer", "get_train_iterator", _marking_the_task, Scope.OURS),
    Patch(_ITERATOR, "state_dict", _with_ranks, Scope.OURS),
    Patch(_ITERATOR, "load_state_dict", _converted, Scope.OURS),
    Patch(_ITERATOR, "_get_iterator_for_epoch", _shuffled_as_asked, Scope.OURS),
    Patch("fairseq.data.iterators:GroupedIterator", "__init__", _whole_epochs, Scope.FAILURES),
    Patch("fairseq.checkpoint_utils", "load_checkpoint", _unless_over, Scope.OURS),
)
