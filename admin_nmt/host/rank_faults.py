"""What one rank of several cannot compute, all ranks leave out together.

On one GPU fairseq skips a batch for which memory does not suffice. With several ranks it does not: the
rank goes on with other statistics than its peers, or without the exchange of gradients in which they
wait. Here a rank that has run out of memory takes part in whatever the update still asks of it, and
says so where the ranks compare the norms of their gradients. There each reads the numbers of all
anyway, so that no operation and no wait for the GPU is added; then all leave the update out.

Gradients that are not finite end all ranks alike. Each first computes its own ones again, so that the
line can say whose they are; if nobody's are, the update is left out.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from admin_nmt.errors import UserError, out_of_memory
from admin_nmt.host.errors import first_line
from admin_nmt.host.lifeline import AllRanksError
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope
from admin_nmt.host.updates import UpdateLeftOutError, saved_aggregators

logger = logging.getLogger(__name__)

#: Number of updates left out in a row after which training ends.
MOST_IN_A_ROW = 10
#: In place of the norm of the gradients, which is not negative.
_SHORT_OF_MEMORY = -1.0
_BACKENDS = ("c10d", "pytorch_ddp", "no_c10d", "legacy_ddp")
_MARK = "_admin_nmt_rank_faults"
_LOWER = "lower --max-tokens, and raise --update-freq to keep the effective batch"


class _NotFiniteError(Exception):
    """The norm of the gradients is not finite on some rank."""


@dataclass
class Update:
    """What a rank knows of the update that it computes.

    Attributes:
        short_of_memory: whether this rank has run out of memory in it.
        in_a_row: updates that were left out directly before it.
        parameters: trained ones of the model.
    """

    short_of_memory: bool = False
    in_a_row: int = 0
    parameters: list[Tensor] = field(default_factory=list)


class Attempt:
    """A criterion that remembers what it returned, without its graph."""

    def __init__(self, criterion: Any) -> None:
        self._criterion = criterion
        self.result: tuple[Tensor, Any, dict[str, Any]] | None = None

    def __call__(self, model: Any, sample: Any) -> Any:
        loss, sample_size, log = self._criterion(model, sample)
        self.result = loss.detach(), sample_size, log
        return loss, sample_size, log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._criterion, name)


def one_pair(sample: Any, size: int | None = None) -> Any:
    """The first sentence pair of a batch, in the same form; without word alignments, whose places count
    over the whole batch.

    >>> one_pair({"nsentences": 2, "ntokens": 5, "net_input": {"src_lengths": torch.tensor([3, 2])}})
    {'nsentences': 1, 'ntokens': 5, 'net_input': {'src_lengths': tensor([3])}}
    """
    if size is None:
        without = {name: None for name in ("alignments", "align_weights") if name in sample}
        return {**one_pair(sample, sample["nsentences"]), "nsentences": 1, **without}
    if isinstance(sample, dict):
        return {name: one_pair(value, size) for name, value in sample.items()}
    if isinstance(sample, Tensor) and sample.dim() and len(sample) == size:
        return sample[:1]
    return sample


def _reduces_in_backward(model: Any) -> bool:
    """Whether the backward pass that comes now exchanges gradients."""
    wrapped = getattr(model, "module", None)
    return isinstance(wrapped, DistributedDataParallel) and wrapped.require_backward_grad_sync


def _versions(parameters: Sequence[Tensor]) -> list[int | None]:
    """What changes when a gradient is added to: None without one."""
    return [None if p.grad is None else p.grad._version for p in parameters]


def complete_reduction(parameters: Sequence[Tensor], before: Sequence[int | None]) -> None:
    """Let PyTorch's exchange of gradients run to its end after a backward pass that failed: parameters
    that the pass has not reached get zeros, and with them its hooks.

    Args:
        parameters: those that the exchange waits for.
        before: their `_versions` before the pass.
    """
    now = _versions(parameters)
    left = [p for p, old, new in zip(parameters, before, now, strict=True) if old == new]
    torch.autograd.backward(left, [p.new_zeros(()).expand_as(p) for p in left])


def _agrees(trainer: Any) -> bool:
    """Whether the ranks of a trainer compare the norms of their gradients in every update."""
    distributed = trainer.cfg.distributed_training
    return (
        trainer.data_parallel_world_size > 1
        and is_ours(trainer)
        and distributed.ddp_backend in _BACKENDS
        and not distributed.broadcast_buffers
        and not distributed.find_unused_parameters
        and not trainer.cfg.optimization.use_bmuf
        and not trainer.tpu
    )


def _together(train_step: Callable) -> Callable:
    """With several ranks, all skip an update for which one of them runs out of memory, with one line in
    the log; where gradients are not finite, one line names the rank."""

    @wraps(train_step)
    def wrapped(self: Any, samples: Any, raise_oom: bool = False) -> Any:
        if not _agrees(self):
            return train_step(self, samples, raise_oom)
        update: Update = self.task.__dict__.setdefault(_MARK, Update())
        update.short_of_memory = False
        if not update.parameters:
            update.parameters = [p for p in self.get_model().parameters() if p.requires_grad]
        restore_log = saved_aggregators()
        try:
            log = train_step(self, samples, raise_oom)
        except UpdateLeftOutError as reason:
            why = str(reason)
        except _NotFiniteError:
            why = _explain(self, samples)
        except FloatingPointError as error:
            text = " ".join(str(error).replace("-" * 80, "").split())
            raise UserError(f"update {self.get_num_updates() + 1}: {text}") from error
        else:
            if log is not None:
                update.in_a_row = 0
            return log
        restore_log()
        _leave_out(self, update, why)
        return None

    return wrapped


def _leave_out(trainer: Any, update: Update, why: str) -> None:
    """Forget the gradients; too often in a row is an error, on all ranks at once."""
    number = trainer.get_num_updates() + 1
    trainer.zero_grad()
    if trainer.cfg.common.amp:
        trainer.optimizer.scaler.update()  # closes what was begun by looking at the norm
    update.in_a_row += 1
    if update.in_a_row >= MOST_IN_A_ROW:
        raise AllRanksError(
            f"update {number} was left out {update.in_a_row} times in a row ({why}); {_LOWER}, then run "
            "the same command again: training resumes from the last checkpoint"
        )
    if trainer.data_parallel_rank == 0:
        logger.warning(f"update {number} is left out on all ranks: {why}")


def _ranks(numbers: Sequence[int]) -> str:
    """Ranks in a sentence.

    >>> _ranks([1]), _ranks([0, 3])
    ('rank 1', 'ranks 0, 3')
    """
    return f"rank{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _explain(trainer: Any, samples: Sequence[Any]) -> str:
    """Whose gradients are not finite: each rank computes its own ones again, without an exchange.

    Returns:
        Why the update is left out, where all are finite this time.

    Raises:
        AllRanksError: naming the rank, and where in the model it begins.
    """
    found: list[str | None] = [None] * trainer.data_parallel_world_size
    torch.distributed.all_gather_object(
        found, _not_finite(trainer, samples), group=trainer.data_parallel_process_group
    )
    ranks = [rank for rank, where in enumerate(found) if where is not None]
    if not ranks:
        return "a gradient was not finite, and is so on no rank when computed again"
    raise AllRanksError(
        f"gradients of {_ranks(ranks)} at update {trainer.get_num_updates() + 1} are NaN or infinite "
        f"({found[ranks[0]]}); train with a lower --lr, a longer --warmup-updates or a --clip-norm: the "
        "same command resumes from the last checkpoint"
    )


def _not_finite(trainer: Any, samples: Sequence[Any]) -> str | None:
    """Where this rank's own loss or gradients are not finite, else None."""
    trainer._set_seed()
    trainer.zero_grad()
    found = None
    with trainer.model.no_sync():
        for sample in samples:
            sample, is_dummy = trainer._prepare_sample(sample)
            loss, *_ = trainer.task.train_step(
                sample=sample,
                model=trainer.model,
                criterion=trainer.criterion,
                optimizer=trainer.optimizer,
                update_num=trainer.get_num_updates(),
                ignore_grad=is_dummy,
            )
            if found is None and not torch.isfinite(loss).all():
                found = "and so is the loss"
    for name, parameter in trainer.get_model().named_parameters():
        gradient = parameter.grad
        if found is None and gradient is not None and not torch.isfinite(gradient).all():
            found = f"first that of {name}, while the loss is finite"
    trainer.zero_grad()
    return found


def _surviving(train_step: Callable) -> Callable:
    """With several ranks, one that runs out of memory in an update still takes part in what its peers
    wait for: the rest of the backward pass with zeros, or both passes for one sentence pair."""

    @wraps(train_step)
    def wrapped(
        self: Any, sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int,
        ignore_grad: bool = False, **kwargs: Any,
    ) -> Any:  # fmt: skip
        update: Update | None = self.__dict__.get(_MARK)

        def step(sample: Any, criterion: Any, ignore_grad: bool) -> Any:
            return train_step(
                self, sample, model, criterion, optimizer, update_num, ignore_grad, **kwargs
            )

        if update is None:
            return step(sample, criterion, ignore_grad)
        if update.short_of_memory:  # in an earlier batch of this update, which nobody will use
            return step(one_pair(sample), criterion, True)
        attempt = Attempt(criterion)
        before = _versions(update.parameters) if _reduces_in_backward(model) else []
        try:
            return step(sample, attempt, ignore_grad)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            text = first_line(error)
        # Only here the exception is gone, and with it what its frames hold of the failed pass.
        update.short_of_memory = True
        where = "forward" if attempt.result is None else "backward"
        logger.warning(
            f"rank {torch.distributed.get_rank()} is out of memory in the {where} pass of update "
            f"{update_num + 1} ({text}); if it happens often, {_LOWER}"
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if attempt.result is not None:
            if before:
                complete_reduction(update.parameters, before)
            return attempt.result
        optimizer.zero_grad()
        return step(one_pair(sample), criterion, True)

    return wrapped


def _agreeing(check_grad_norms: Callable) -> Callable:
    """Where the ranks compare the norms of their gradients (now also on CPUs), a rank can report that it
    ran out of memory; then all skip the update."""

    @wraps(check_grad_norms)
    def wrapped(self: Any, grad_norm: Any) -> None:
        from fairseq.distributed import utils as distributed

        if not _agrees(self):
            check_grad_norms(self, grad_norm)
            return
        if self._grad_norm_buf is None:
            self._grad_norm_buf = torch.zeros(
                self.data_parallel_world_size, dtype=torch.float64, device=self.device
            )
        norms = self._grad_norm_buf.zero_()
        short = self.task.__dict__[_MARK].short_of_memory
        norms[self.data_parallel_rank] = _SHORT_OF_MEMORY if short else grad_norm
        distributed.all_reduce(norms, group=self.data_parallel_process_group)
        of_ranks = norms.tolist()
        without = [rank for rank, norm in enumerate(of_ranks) if norm == _SHORT_OF_MEMORY]
        if without:
            raise UpdateLeftOutError(f"{_ranks(without)} had no memory for it")
        if all(map(math.isfinite, of_ranks)):
            largest, first = max(abs(norm - of_ranks[0]) for norm in of_ranks), of_ranks[0]
            if largest >= 1e-6 * (first + 1e-6):
                check_grad_norms(self, grad_norm)  # tells the norms
        elif not self.cfg.common.amp:  # whose scaler leaves out such updates itself
            raise _NotFiniteError

    return wrapped


def _unless_crashed(save_checkpoint: Callable) -> Callable:
    """Several ranks leave no `crash.pt` behind: no training can go on from it."""

    @wraps(save_checkpoint)
    def wrapped(self: Any, filename: str, extra_state: dict[str, Any]) -> Any:
        if (
            Path(filename).name == "crash.pt"
            and self.data_parallel_world_size > 1
            and is_ours(self)
        ):
            return None
        return save_checkpoint(self, filename, extra_state)

    return wrapped


_TRAINER = "fairseq.trainer:Trainer"
PATCHES = (
    Patch(_TRAINER, "train_step", _together, Scope.OURS),
    Patch("fairseq.tasks:FairseqTask", "train_step", _surviving, Scope.OURS),
    Patch(_TRAINER, "_check_grad_norms", _agreeing, Scope.OURS),
    Patch(_TRAINER, "save_checkpoint", _unless_crashed, Scope.OURS),
)
