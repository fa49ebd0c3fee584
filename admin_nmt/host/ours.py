"""Whether a program of fairseq has to do with one of our models."""

from typing import Any


def is_ours(trainer: Any) -> bool:
    """Whether `trainer` trains an `admin_transformer`; runs of other models stay fairseq's."""
    from admin_nmt.models.admin_transformer import AdminTransformerModel

    return isinstance(trainer.get_model(), AdminTransformerModel)


def is_our_architecture(architecture: Any) -> bool:
    """Whether a value of `--arch` names an `admin_transformer`; None names nothing."""
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY

    return ARCH_MODEL_NAME_REGISTRY.get(architecture) == "admin_transformer"
