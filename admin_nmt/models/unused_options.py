"""Options of `admin_transformer` that do nothing beside the others that were given."""

from admin_nmt.initialization.registry import SCHEMES
from admin_nmt.initialization.scheme import Depth
from admin_nmt.models.config import AdminTransformerConfig
from admin_nmt.modules.residual import ScaledResidual
from admin_nmt.modules.residual_attention import residual_kinds
from admin_nmt.option_names import plain_value


def unused_options(cfg: AdminTransformerConfig) -> list[str]:
    """One line for each option that differs from its default and changes nothing in this model.

    They are told at the start of training and not refused, because checkpoints of earlier versions may
    hold them.
    """
    init_type = str(plain_value(cfg.init_type))
    scheme = SCHEMES[init_type].scheme(Depth(1, 1), True)
    pre_norm = cfg.encoder.normalize_before and cfg.decoder.normalize_before
    has_omegas = isinstance(scheme.residual("encoder", 1, 1), ScaledResidual)
    lines = {
        f"--admin-freeze-omega: --init-type {init_type} has no omegas": (
            cfg.admin_freeze_omega and not has_omegas
        ),
        f"--admin-profile-batches: --init-type {init_type} measures no profile": (
            cfg.admin_profile_batches > 1 and not scheme.needs_profile
        ),
        "--admin-profile-batches: --admin-profile gives the profile": (
            cfg.admin_profile_batches > 1 and bool(cfg.admin_profile)
        ),
        "--residual-attention-reduce: give --residual-attention to carry scores": (
            plain_value(cfg.residual_attention_reduce) == "sum"
            and not residual_kinds(cfg.residual_attention)
        ),
        "--fused-residual-norm: pre-LN has no LayerNorm behind a residual connection": (
            cfg.fused_residual_norm and pre_norm
        ),
        f"--fused-residual-norm: --init-type {init_type} has no LayerNorm": (
            cfg.fused_residual_norm and not scheme.layer_norm
        ),
        "--alignment-heads: give --alignment-layer": (
            cfg.alignment_heads != 1 and cfg.alignment_layer is None
        ),
    }
    return [line for line, unused in lines.items() if unused]
