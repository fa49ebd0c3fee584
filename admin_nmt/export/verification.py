"""Checks that what was written computes what was trained."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from admin_nmt.errors import UserError
from admin_nmt.evaluation.checkpoints import open_checkpoint

#: Largest difference of logits that folding may leave, relative to the largest logit. Rounding
#: stays below 1e-4 for 100 layers; a wrong fold is off by the size of the logits.
LOGIT_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Agreement:
    """How far the logits of two models are apart, and how large they are."""

    difference: float
    magnitude: float

    def line(self) -> str:
        """For people."""
        return (
            f"logits on 8 random sentences: largest difference {self.difference:.2g}, "
            f"largest value {self.magnitude:.3g}"
        )


def compare_logits(path: str | Path, folded: dict[str, Any]) -> Agreement:
    """Run a checkpoint and its folded form on the same random sentences, in float32.

    Raises:
        UserError: they differ by more than rounding can explain.
    """
    from admin_nmt.export.checkpoint import model_settings, to_float32
    from admin_nmt.export.rebuild import build_model, largest_difference, random_batch

    state = open_checkpoint(path)
    settings = model_settings(state)
    original, _ = to_float32(state["model"])
    batch = random_batch(settings, original)
    models = (
        build_model(settings, original, "admin_transformer"),
        build_model(Namespace(**folded["cfg"]["model"]), folded["model"], "transformer"),
    )
    agreement = Agreement(*largest_difference(*models, batch))
    if not agreement.difference <= LOGIT_TOLERANCE * max(agreement.magnitude, 1.0):
        raise UserError(
            f"folding {path} is not accurate enough ({agreement.line()}): its omegas span a range "
            "that float32 cannot bridge"
        )
    return agreement
