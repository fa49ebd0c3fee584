"""Whether operations are being recorded, to run again later on other values in the same memory.

A CUDA graph and `torch.compile` keep operations, not the Python around them. What asks the values of
a tensor for its way (`.item()`, `nonzero`), or draws a random number on the host, would repeat the
first answer in every replay; where `recorded` says so, the operations of this package do neither.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import torch

_numbers = count(1)
_current = 0


@contextmanager
def recording() -> Iterator[None]:
    """Within the context operations are recorded, or run as they are about to be recorded. What is
    computed in it is computed again by each replay, and what was computed before is not."""
    global _current
    outer, _current = _current, next(_numbers)
    try:
        yield
    finally:
        _current = outer


def recording_number() -> int:
    """Tells one `recording` from another; 0 outside."""
    return _current


def recorded(device: torch.device) -> bool:
    """Whether operations on tensors of `device` are being recorded now, by whomever."""
    # The compiler is asked first: it would take our count for a constant of what it compiles.
    if torch.compiler.is_compiling():
        return True
    return _current > 0 or (device.type == "cuda" and torch.cuda.is_current_stream_capturing())
