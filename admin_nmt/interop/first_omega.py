"""A trained omega of the first sublayer of a stack, where ours is fixed at 1.

    x_1 = LN(omega_1 * x_0 + f_1(x_0))

The official code trains omega_1 like the others; `--init-type admin` leaves it out, because in a
plain Transformer nothing could absorb it. In the embeddings it can be absorbed, exactly:

    x_0' = omega_1 * x_0,    W' = W / omega_1 for the q, k and v projections, which read x_0

- with `--layernorm-embedding`, x_0 is the output of a LayerNorm, which takes up omega_1;
- otherwise x_0 = s E[token] + P[position]: rows of E and P are multiplied by omega_1. Fixed
  sinusoids become a table of learned positions with the same content, as long as the model allows
  sentences to be. The embedding can no longer be shared with another one or with the output
  projection, which keep the old values; the file and the memory grow by that table.
"""

from typing import Any

import torch
from torch import Tensor

from admin_nmt.errors import UserError
from admin_nmt.initialization.scheme import Stack

#: Index of the padding symbol in every dictionary of fairseq, before the positions.
_PAD = 1


def absorb(
    model: dict[str, Tensor], settings: dict[str, Any], stack: Stack, omega: Tensor
) -> str | None:
    """Absorb omega_1 (D,) of a stack into embeddings, in place; None if it is 1 throughout.

    Args:
        model: state dict in today's names, float32.
        settings: complete settings of the model.

    Returns:
        human-readable summary.

    Raises:
        UserError: a component is zero or not finite, or the embedding is adaptive.
    """
    if (omega == 1).all():
        return None
    bad = int(((omega == 0) | ~torch.isfinite(omega)).sum())
    if bad:
        raise UserError(
            f"the first omega of the {stack} cannot be absorbed: {bad} of its {omega.numel()} "
            "components are zero or not finite"
        )
    spread = f"first omega of the {stack} ({omega.min():.4g} to {omega.max():.4g}) absorbed by"
    if settings.get("layernorm_embedding"):
        for kind in ("weight", "bias"):
            _scale(model, f"{stack}.layernorm_embedding.{kind}", omega)
        where = "its embedding's LayerNorm"
    else:
        where = _absorb_in_embeddings(model, settings, stack, omega)
    for part in "qkv":
        _scale(model, f"{stack}.layers.0.self_attn.{part}_proj.weight", 1 / omega)
    return f"{spread} {where}"


def _absorb_in_embeddings(
    model: dict[str, Tensor], settings: dict[str, Any], stack: Stack, omega: Tensor
) -> str:
    if settings.get("adaptive_softmax_cutoff"):
        raise UserError(
            f"the first omega of the {stack} cannot be absorbed: the embedding belongs to an "
            "adaptive softmax"
        )
    if f"{stack}.project_in_dim.weight" in model:
        name = f"{stack}.project_in_dim.weight"
        _scale(model, name, omega[:, None])
        where = "the projection of its embedding"
    else:
        _scale(model, f"{stack}.embed_tokens.weight", omega)
        where = "its embedding"
        if settings["share_all_embeddings"]:
            settings["share_all_embeddings"] = False
            settings["share_decoder_input_output_embed"] = True
            where += ", no longer shared,"
        if stack == "decoder":
            settings["share_decoder_input_output_embed"] = False
    if settings["no_token_positional_embeddings"]:
        return where
    side = "source" if stack == "encoder" else "target"
    if not settings[f"{stack}_learned_pos"]:
        from fairseq.modules import SinusoidalPositionalEmbedding

        length = settings[f"max_{side}_positions"]
        table = SinusoidalPositionalEmbedding.get_embedding(
            length + _PAD + 1, settings[f"{stack}_embed_dim"], _PAD
        )
        model[f"{stack}.embed_positions.weight"] = table
        settings[f"{stack}_learned_pos"] = True
        where += f" and positions, now a table of {length}"
    else:
        where += " and learned positions"
    _scale(model, f"{stack}.embed_positions.weight", omega)
    return where


def _scale(model: dict[str, Tensor], name: str, factor: Tensor) -> None:
    if name not in model:
        raise UserError(f"{name} is missing")
    try:
        scaled = model[name] * factor
    except RuntimeError:
        scaled = None
    if scaled is None or scaled.shape != model[name].shape:
        raise UserError(
            f"{name} of shape {tuple(model[name].shape)} does not fit omega of shape "
            f"{tuple(factor.shape)}"
        )
    if not torch.isfinite(scaled).all():
        raise UserError(f"{name} leaves the range of float32 when the first omega is absorbed")
    model[name] = scaled
