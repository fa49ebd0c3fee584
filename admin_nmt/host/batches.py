"""Batches: every sentence in one, `--num-batch-buckets` on today's numpy, a quiet end of reading ahead."""

import atexit
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from types import SimpleNamespace
from typing import Any

import numpy as np

from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Addition, Patch, Scope

#: While a trainer makes batches for a model that is not ours: they are stock fairseq's.
_stock = ContextVar("_stock", default=False)


@contextmanager
def _stock_batches(stock: bool) -> Iterator[None]:
    token = _stock.set(stock)
    try:
        yield
    finally:
        _stock.reset(token)


def _stock_batches_for_stock_models(get_iterator: Callable) -> Callable:
    """Training and validation of other models than ours get exactly the batches that they would
    get without this package, so that baselines do not change."""

    @wraps(get_iterator)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _stock_batches(not is_ours(self)):
            return get_iterator(self, *args, **kwargs)

    return wrapped


def _keep_last_batch(batch_by_size: Callable) -> Callable:
    """Batches hold every sentence of a data set that is translated, scored or analysed, and of the
    training and validation data of our models. fairseq silently drops the last batch when its size
    is not a multiple of `--required-batch-size-multiple` (default 8).

    The option's help promises only that batch sizes are multiples where they can be.
    """

    @wraps(batch_by_size)
    def wrapped(indices: Any, *args: Any, **kwargs: Any) -> Any:
        indices = np.fromiter(indices, dtype=np.int64, count=-1)
        if not len(indices):
            return []
        batches = batch_by_size(indices, *args, **kwargs)
        if kwargs.get("fixed_shapes") is not None or _stock.get():
            return batches
        num_kept = sum(len(batch) for batch in batches)
        # Batches are consecutive pieces of `indices`, so what is missing is the end.
        return [*batches, indices[num_kept:]] if num_kept < len(indices) else batches

    return wrapped


def _buckets_of_numpy_2(get_buckets: Callable) -> Callable:
    """`--num-batch-buckets`: numpy 2.4 has no `interpolation` in `percentile` any more."""

    @wraps(get_buckets)
    def wrapped(sizes: Any, num_buckets: int) -> Any:
        places = np.linspace(0, 100, num_buckets + 1)
        return np.unique(np.percentile(sizes, places, method="lower")[1:])

    return wrapped


def _with_numpy_compat(init: Callable) -> Callable:
    """`--num-batch-buckets`: the constructor asks for `numpy.compat.long`, gone since numpy 2."""

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if hasattr(np, "compat"):
            init(self, *args, **kwargs)
            return
        np.compat = SimpleNamespace(long=np.int64)  # type: ignore[attr-defined]
        try:
            init(self, *args, **kwargs)
        finally:
            del np.compat  # type: ignore[attr-defined]

    return wrapped


def _stop_reading_ahead(patience: float = 2.0) -> None:
    """End fairseq's threads that read batches ahead, before Python ends; wait `patience` seconds.

    They are daemon threads. Python ends such a thread where it asks for the interpreter's lock; if
    that happens inside a tensor operation, C++ aborts the process ("terminate called without an
    active exception", exit code 134), although training has finished well.
    """
    from fairseq.data.iterators import BackgroundConsumer

    deadline = time.monotonic() + patience
    for thread in threading.enumerate():
        if isinstance(thread, BackgroundConsumer):
            thread._max_len = 0  # it stops after the batch in hand
            while thread.is_alive() and time.monotonic() < deadline:
                with suppress(queue.Empty):  # make room if it waits for that
                    thread._queue.get_nowait()
                thread.join(0.01)


def _end_reading_ahead_at_exit() -> Callable[[], None]:
    """End fairseq's threads that read batches ahead before Python ends: killed inside a tensor
    operation they abort a training that has finished well (exit code 134)."""
    atexit.register(_stop_reading_ahead)
    return lambda: atexit.unregister(_stop_reading_ahead)


_TRAINER = "fairseq.trainer:Trainer"
PATCHES = (
    Patch("fairseq.data.data_utils", "batch_by_size", _keep_last_batch, Scope.ALL),
    Patch(_TRAINER, "get_train_iterator", _stock_batches_for_stock_models, Scope.ALL),
    Patch(_TRAINER, "get_valid_iterator", _stock_batches_for_stock_models, Scope.ALL),
    Patch(
        "fairseq.data.bucket_pad_length_dataset",
        "get_buckets",
        _buckets_of_numpy_2,
        Scope.FAILURES,
    ),
    Patch("fairseq.data:LanguagePairDataset", "__init__", _with_numpy_compat, Scope.FAILURES),
    Addition("atexit", _end_reading_ahead_at_exit, Scope.FAILURES),
)
