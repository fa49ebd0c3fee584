"""Distillation of a model into a smaller one: training data that a teacher has translated."""

from admin_nmt.distillation.sequence_level import Distilled, distill

__all__ = ["Distilled", "distill"]
