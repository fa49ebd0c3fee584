"""Importing this module tells fairseq about everything admin_nmt adds to it."""

import fairseq  # noqa: F401

from admin_nmt import compat, frontdoor, provenance, recipes
from admin_nmt.host import criterions, exact_resume, master_weights, update_checkpoints
from admin_nmt.initialization import training_start

compat.apply()
frontdoor.install()
provenance.install()
recipes.install()
training_start.install()
criterions.install()
exact_resume.install()
master_weights.install()
update_checkpoints.install()

from admin_nmt.criterions import (  # noqa: E402, F401
    label_smoothed_cross_entropy,
    label_smoothed_cross_entropy_rdrop,
)
from admin_nmt.models import admin_transformer  # noqa: E402, F401
from admin_nmt.optim import fused_adam, radam  # noqa: E402, F401
