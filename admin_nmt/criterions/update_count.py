"""Telling a criterion the number of updates, which fairseq tells only models and schedulers."""

from functools import wraps
from typing import Any


def install() -> None:
    """Let fairseq's trainer call `set_num_updates(n)` on criterions that have it, also on resume."""
    from fairseq.trainer import Trainer

    original = Trainer.set_num_updates
    if hasattr(original, "_admin_nmt_patch"):
        return

    @wraps(original)
    def set_num_updates(self: Any, num_updates: int) -> None:
        original(self, num_updates)
        criterion = self.get_criterion()
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(num_updates)

    set_num_updates._admin_nmt_patch = True  # type: ignore[attr-defined]
    Trainer.set_num_updates = set_num_updates
