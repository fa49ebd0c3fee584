"""Whether a trainer of fairseq trains a model of ours."""

from typing import Any


def is_ours(trainer: Any) -> bool:
    """Whether `trainer` trains an `admin_transformer`; runs of other models stay fairseq's."""
    from admin_nmt.models.admin_transformer import AdminTransformerModel

    return isinstance(trainer.get_model(), AdminTransformerModel)
