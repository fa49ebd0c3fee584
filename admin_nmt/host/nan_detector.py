"""fairseq's search for the module in which a NaN arises."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.host.patch import Patch, Scope


def _not_behind_encoders(add_hooks: Callable) -> Callable:
    """The search for the source of a NaN sets no backward hook on an encoder, whose output is a dictionary of
    lists: PyTorch finds no tensor there, and the training ended in `StopIteration` in place of "gradients are
    Nan/Inf"."""

    @wraps(add_hooks)
    def wrapped(self: Any, module: Any) -> None:
        from fairseq.models import FairseqEncoder

        backward = self.backward
        self.backward = backward and not isinstance(module, FairseqEncoder)
        try:
            add_hooks(self, module)
        finally:
            self.backward = backward

    return wrapped


PATCHES = (
    Patch("fairseq.nan_detector:NanDetector", "add_hooks", _not_behind_encoders, Scope.FAILURES),
)
