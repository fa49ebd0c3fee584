"""What fairseq's trainer tells a criterion: the model before training, the number of updates in it."""

from functools import wraps
from typing import Any


def install() -> None:
    """Let fairseq's trainer call `check_model(model)` and `set_num_updates(n)` on criterions that
    have them; calling it again changes nothing."""
    from fairseq.trainer import Trainer

    init, set_updates = Trainer.__init__, Trainer.set_num_updates
    if hasattr(set_updates, "_admin_nmt_patch"):
        return

    @wraps(init)
    def checked_init(
        self: Any, cfg: Any, task: Any, model: Any, criterion: Any, *rest: Any, **kwargs: Any
    ) -> None:
        # Before anything is built: an exception inside a training step leaves a `crash.pt` in
        # --save-dir, whatever --no-save says.
        if hasattr(criterion, "check_model"):
            criterion.check_model(model)
        init(self, cfg, task, model, criterion, *rest, **kwargs)

    @wraps(set_updates)
    def set_num_updates(self: Any, num_updates: int) -> None:
        set_updates(self, num_updates)
        criterion = self.get_criterion()
        if hasattr(criterion, "set_num_updates"):
            criterion.set_num_updates(num_updates)

    set_num_updates._admin_nmt_patch = True  # type: ignore[attr-defined]
    Trainer.__init__, Trainer.set_num_updates = checked_init, set_num_updates
