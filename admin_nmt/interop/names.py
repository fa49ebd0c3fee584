"""Names and layouts of parameters: those of old fairseq as fairseq has them today.

| until fairseq | old                                                  | today                             |
|---------------|------------------------------------------------------|-----------------------------------|
| 0.6           | `layers.N.layer_norms.K`                             | `self_attn_layer_norm` and others |
| 0.8           | `in_proj_weight` (3 D, D), `in_proj_bias` (3 D,)     | `q_proj`, `k_proj`, `v_proj`      |
| 0.8           | `q_proj_weight`, `k_proj_weight`, `v_proj_weight`    | the same (unequal widths)         |
| 0.9           | `decoder.embed_out` (V, D)                           | `decoder.output_projection`       |
| 0.9           | `embed_positions._float_tensor` (and `weights`)      | none                              |
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from admin_nmt.checkpoints.tensors import cast
from admin_nmt.errors import UserError

_NO_PARAMETERS = (".embed_positions._float_tensor", ".embed_positions.weights")
_LAYER_NORMS = {
    "encoder": ("self_attn_layer_norm", "final_layer_norm"),
    "decoder": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
}
_OLD_LAYER_NORM = re.compile(r"(encoder|decoder)(\.layers\.\d+\.)layer_norms\.([0-2])\.(\w+)")


def float32(model: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str | None]:
    """Entries of 16 and 64 bits in float32, tied ones still tied; and the names of the
    types that they had."""
    types = {value.dtype for value in model.values() if value.is_floating_point()}
    others = sorted(str(kind).removeprefix("torch.") for kind in types - {torch.float32})
    return cast(model, torch.float32), ", ".join(others) or None


def modern_names(model: Mapping[str, Tensor], shared_output: bool) -> dict[str, Tensor]:
    """A state dict under the names of fairseq 0.12.

    Args:
        model: state dict of an encoder-decoder Transformer of any fairseq.
        shared_output: whether the output projection is the decoder's embedding.

    Raises:
        UserError: an attention's projection does not fall into three equal parts.
    """
    result: dict[str, Tensor] = {}
    for name, value in model.items():
        old = _OLD_LAYER_NORM.fullmatch(name)
        if name.endswith(_NO_PARAMETERS):
            continue
        if old and int(old[3]) < len(_LAYER_NORMS[old[1]]):
            name = f"{old[1]}{old[2]}{_LAYER_NORMS[old[1]][int(old[3])]}.{old[4]}"
        elif name == "decoder.embed_out":
            name = "decoder.output_projection.weight"
        result[name] = value
    for name in list(result):
        prefix, _, kind = name.rpartition(".")
        if kind in ("in_proj_weight", "in_proj_bias"):
            _split(result, name, prefix, kind.removeprefix("in_proj_"))
        elif kind in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            result[f"{prefix}.{kind[0]}_proj.weight"] = result.pop(name)
    if shared_output and "decoder.output_projection.weight" not in result:
        result["decoder.output_projection.weight"] = result["decoder.embed_tokens.weight"]
    return result


def _split(result: dict[str, Tensor], name: str, prefix: str, kind: str) -> None:
    fused = result.pop(name)
    if not fused.dim() or len(fused) % 3:
        raise UserError(
            f"{name} of shape {tuple(fused.shape)} does not fall into three equal parts"
        )
    for part, piece in zip("qkv", fused.chunk(3), strict=True):
        result[f"{prefix}.{part}_proj.{kind}"] = piece.clone()


def sizes_of(model: Mapping[str, Tensor]) -> dict[str, int]:
    """What weights say about a model, under the names of fairseq's settings.

    Args:
        model: from `modern_names`.

    Raises:
        UserError: a layer or its FFN is missing.
    """
    sizes = {"encoder_embed_dim": model["encoder.embed_tokens.weight"].shape[1]}
    for stack in ("encoder", "decoder"):
        layer = re.compile(rf"{stack}\.layers\.(\d+)\.")
        found = {int(match[1]) for match in map(layer.match, model) if match}
        if found != set(range(len(found))) or not found:
            raise UserError(f"the {stack} has no layers, or not all of them")
        weight = model.get(f"{stack}.layers.0.fc1.weight")
        if weight is None or weight.dim() != 2:
            raise UserError(f"{stack}.layers.0.fc1.weight is missing or no matrix")
        sizes[f"{stack}_layers"] = len(found)
        sizes[f"{stack}_ffn_embed_dim"], sizes[f"{stack}_embed_dim"] = map(int, weight.shape)
    return sizes


def require_agreement(settings: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Refuse settings that contradict the weights.

    Raises:
        UserError: with the setting and both values.
    """
    for name, found in sizes.items():
        given = settings.get(name)
        if given is not None and given != found:
            raise UserError(
                f"it contradicts itself: {name} is {str(given)[:40]} in its settings, "
                f"{found} in its weights"
            )
