"""What knows a checkpoint file: read safely, checked, asked for its settings, averaged, saved."""

from admin_nmt.lazy import lazy_attributes

_HOMES = {
    "Checkpoint": "admin_nmt.checkpoints.checkpoint",
    "average": "admin_nmt.checkpoints.averaging",
    "extend_vocabulary": "admin_nmt.checkpoints.vocabulary",
}

__all__ = ["Checkpoint", "average", "extend_vocabulary"]

__getattr__ = lazy_attributes(__name__, _HOMES)
