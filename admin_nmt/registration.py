"""Importing this module tells fairseq about everything admin_nmt adds to it."""

import fairseq  # noqa: F401

from admin_nmt import compat, frontdoor, recipes
from admin_nmt.initialization import training_start

compat.apply()
frontdoor.install()
recipes.install()
training_start.install()

from admin_nmt.models import admin_transformer  # noqa: E402, F401
from admin_nmt.optim import fused_adam, radam  # noqa: E402, F401
