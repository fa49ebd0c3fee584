"""Training data that a model has translated: distillation into a smaller one, and back-translation."""

from admin_nmt.synthetic_data.back_translation import BackTranslated, back_translate
from admin_nmt.synthetic_data.sequence_level import Distilled, distill

__all__ = ["BackTranslated", "Distilled", "back_translate", "distill"]
