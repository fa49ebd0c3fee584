"""Whether operations are being recorded, to run again later on other values in the same memory.

A CUDA graph and `torch.compile` keep operations, not the Python around them. What asks the values of
a tensor for its way (`.item()`, `nonzero`), or draws a random number on the host, would repeat the
first answer in every replay; where `recorded` says so, the operations of this package do neither.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_depth = 0


@contextmanager
def recording() -> Iterator[None]:
    """Within the context operations are recorded, or run as they are about to be recorded."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def recorded(device: torch.device) -> bool:
    """Whether operations on tensors of `device` are being recorded now, by whomever."""
    # The compiler is asked first: it would take our count for a constant of what it compiles.
    if torch.compiler.is_compiling():
        return True
    return _depth > 0 or (device.type == "cuda" and torch.cuda.is_current_stream_capturing())
