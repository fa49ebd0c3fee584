"""Waits for the GPU that trainings of our models do without.

A GPU works through a queue that the host fills. Where the host reads a number from the GPU, it waits
until the queue is empty, and then the GPU waits for the host. fairseq reads several after every
update, only for the log. One wait is left: the norm of the gradients must be finite before they
change the weights.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, wraps
from typing import Any

from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

#: What fairseq leaves out of the log of one update.
_LEFT_OUT = ("ppl", "wps", "wpb", "bsz")


class LogOfUpdate(Mapping[str, Any]):
    """The log of one update: rounded numbers by name, read from the GPU when one is asked for.

    Args:
        meters: fairseq's aggregator of this update alone.
        sample_size: what the gradient was divided by.
    """

    def __init__(self, meters: Any, sample_size: Any) -> None:
        self._meters, self._sample_size = meters, sample_size

    @cached_property
    def _values(self) -> dict[str, Any]:
        values = self._meters.get_smoothed_values() | {"sample_size": self._sample_size}
        return {name: value for name, value in values.items() if name not in _LEFT_OUT}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _without_waiting(reduce_and_log_stats: Callable) -> Callable:
    """Losses and the norm of the gradients go to the meters as tensors on the GPU; the log of an update
    is read from the GPU only when it is needed (fairseq reads and rounds it after every update)."""

    @wraps(reduce_and_log_stats)
    def wrapped(self: Any, logging_outputs: Any, sample_size: Any, grad_norm: Any = None) -> Any:
        from fairseq.logging import metrics

        # Under --amp an infinite norm is allowed and not logged: that takes looking at it.
        if not is_ours(self) or self.cfg.common.amp or self.tpu or logging_outputs is None:
            return reduce_and_log_stats(self, logging_outputs, sample_size, grad_norm)
        if grad_norm is not None:
            metrics.log_speed("ups", 1.0, priority=100, round=2)
            metrics.log_scalar("gnorm", grad_norm, priority=400, round=3)
            most = self.cfg.optimization.clip_norm
            if most > 0:
                clipped = 100.0 * (grad_norm > most)
                metrics.log_scalar("clip", clipped, priority=500, round=1)
        with metrics.aggregate() as meters:
            self.task.reduce_metrics(logging_outputs, self.get_criterion())
        if "loss" not in meters:  # fairseq warns, and logs -1
            return reduce_and_log_stats(self, None, sample_size)
        return LogOfUpdate(meters, sample_size)

    return wrapped


PATCHES = (Patch("fairseq.trainer:Trainer", "_reduce_and_log_stats", _without_waiting, Scope.OURS),)
