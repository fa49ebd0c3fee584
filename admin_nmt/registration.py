"""Importing this module tells fairseq about everything admin_nmt adds to it."""

import fairseq  # noqa: F401

from admin_nmt.host import patches

patches.apply()

from admin_nmt.criterions import (  # noqa: E402, F401
    label_smoothed_cross_entropy,
    label_smoothed_cross_entropy_distillation,
    label_smoothed_cross_entropy_rdrop,
)
from admin_nmt.models import admin_transformer  # noqa: E402, F401
from admin_nmt.optim import fused_adam, radam  # noqa: E402, F401
