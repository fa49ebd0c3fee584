"""Leaving out an update from inside fairseq's `Trainer.train_step`."""

from collections.abc import Callable


class UpdateLeftOutError(Exception):
    """Ends a `train_step` without an update; the text says why. Whoever raises it catches it around
    `train_step`, calls what `saved_aggregators` returned, and returns None, as fairseq does where an update
    is left out."""


def saved_aggregators() -> Callable[[], None]:
    """Returns a function which restores the aggregators of fairseq's log that are active now:
    `metrics.aggregate` does not leave a block that ends with an exception."""
    from fairseq.logging import metrics

    kept = [metrics._active_aggregators, metrics._active_aggregators_cnt]
    before = [dict(values) for values in kept]

    def restore() -> None:
        for values, old in zip(kept, before, strict=True):
            values.clear()
            values.update(old)

    return restore
