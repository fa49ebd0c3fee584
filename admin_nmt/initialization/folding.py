"""Exact reparameterisation of a scaled post-LN stack into a plain one (arXiv 2008.07772, section 3).

    x_i = LN_i(omega_i * x_{i-1} + f_i(x_{i-1}))

For i > 1, x_{i-1} = gamma * n + beta is the output of LN_{i-1}. Let that LayerNorm give
x' = omega_i * x_{i-1} instead, and let f_i undo it:

    gamma, beta of LN_{i-1}         times omega_i (by component)
    every weight of f_i reading x   its input column d divided by omega_i[d]

so that x' + f'(x') = omega_i * x + f(x). What reads x: q, k and v of self-attention, only q of
encoder-decoder attention (k and v read the encoder's output), fc1. The last LayerNorm of a stack is
followed by no shortcut and stays.

| symbol  | here                                                               |
|---------|--------------------------------------------------------------------|
| omega_i | `factors[i - 1]`: a number or a (D,) tensor                        |
| LN_0    | `embedding_norm`, only there with `--layernorm-embedding`          |
| f_i     | from `Sublayer.inputs` to `Sublayer.output`                        |

The first sublayer of a stack has no LayerNorm in front (unless `--layernorm-embedding`): a vector
omega_1 cannot be folded, a constant c > 0 can the other way round, `LN(c x + f) = LN(x + f / c)`.
That is exact but for LayerNorm's epsilon (1e-5), which then counts c^2 times as much: with v the
variance of x + f / c, the output of this one LayerNorm changes by the relative amount

    sqrt((v + eps / c^2) / (v + eps)) - 1,    between -eps / (2 v) and 0 for c > 1.

All functions are pure and work in the precision of the tensors they get.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from admin_nmt.errors import UserError
from admin_nmt.initialization.scheme import Stack

#: Factor on a shortcut: one number, or one per component.
Factor = float | Tensor


@dataclass(frozen=True)
class Sublayer:
    """Module names of one sublayer of a stack, as in the state dict.

    Attributes:
        residual: the connection; its vector is at `residual` + ".omega".
        inputs: linear maps that read x_{i-1}.
        output: the linear map that ends f_i.
        layer_norm: LN_i.
    """

    residual: str
    inputs: tuple[str, ...]
    output: str
    layer_norm: str


def stack_sublayers(stack: Stack, num_layers: int, cross_attention: bool = True) -> list[Sublayer]:
    """The sublayers of a stack in forward order, in fairseq's names.

    Args:
        stack: "encoder" or "decoder".
        num_layers: layers of the stack.
        cross_attention: whether a decoder has encoder-decoder attention.
    """
    sublayers = []
    for index in range(num_layers):
        layer = f"{stack}.layers.{index}"
        sublayers.append(_attention(layer, "self_attn", ("q_proj", "k_proj", "v_proj")))
        if stack == "decoder" and cross_attention:
            sublayers.append(_attention(layer, "encoder_attn", ("q_proj",)))
        sublayers.append(
            Sublayer(
                f"{layer}.ffn_residual",
                (f"{layer}.fc1",),
                f"{layer}.fc2",
                f"{layer}.final_layer_norm",
            )
        )
    return sublayers


def _attention(layer: str, name: str, inputs: tuple[str, ...]) -> Sublayer:
    module = f"{layer}.{name}"
    return Sublayer(
        f"{module}_residual",
        tuple(f"{module}.{part}" for part in inputs),
        f"{module}.out_proj",
        f"{module}_layer_norm",
    )


def split_all_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with fairseq's `q_proj`, `k_proj`, `v_proj` in place of our fused matrices."""
    from admin_nmt.modules.multihead_attention import split_projections

    result = dict(state)
    for fused, self_attention in ((".qkv_proj.weight", True), (".kv_proj.weight", False)):
        for name in [name for name in result if name.endswith(fused)]:
            split_projections(result, name.removesuffix(fused), self_attention)
    return result


def fold_stack(
    state: Mapping[str, Tensor],
    sublayers: Sequence[Sublayer],
    factors: Sequence[Factor],
    embedding_norm: str | None = None,
) -> dict[str, Tensor]:
    """Fold the factors of one stack; a plain post-LN stack computes the same from the result.

    Args:
        state: state dict with separate projections; not changed.
        sublayers: of the stack, in forward order.
        factors: omega_1, omega_2, ... of the same length.
        embedding_norm: name of the LayerNorm before the first sublayer, None if there is none.

    Returns:
        a state dict of all entries but the stack's omegas; changed entries are new tensors.

    Raises:
        UserError: a factor has a component that is zero or not finite, or the first one is a vector
            that no LayerNorm could take up, or a folded value leaves the range of its type.
    """
    result = dict(state)
    for position, (sublayer, factor) in enumerate(zip(sublayers, factors, strict=True)):
        result.pop(f"{sublayer.residual}.omega", None)
        _require_divisible(sublayer.residual, factor)
        if _is_one(factor):
            continue
        layer_norm = sublayers[position - 1].layer_norm if position else embedding_norm
        if layer_norm is not None:
            _scale(result, layer_norm, factor)
            for name in sublayer.inputs:
                weight = result[f"{name}.weight"]  # (D_out, D): omega divides columns
                result[f"{name}.weight"] = weight / _like(factor, weight)
                _require_finite(result, f"{name}.weight", sublayer.residual)
        else:
            _scale(result, sublayer.output, 1.0 / _constant(sublayer.residual, factor))
    return result


def _like(factor: Factor, tensor: Tensor) -> Factor:
    return factor.to(tensor) if isinstance(factor, Tensor) else factor


def _scale(state: dict[str, Tensor], name: str, factor: Factor) -> None:
    """Multiply weight and bias of a module by `factor` (a number, or along the last dimension)."""
    for kind in ("weight", "bias"):
        key = f"{name}.{kind}"
        if key in state:
            state[key] = state[key] * _like(factor, state[key])
            _require_finite(state, key, name)


def _is_one(factor: Factor) -> bool:
    return bool((torch.as_tensor(factor) == 1).all())


def _require_divisible(name: str, factor: Factor) -> None:
    values = torch.as_tensor(factor)
    for bad, what in ((values == 0, "zero"), (~torch.isfinite(values), "not finite")):
        if bad.any():
            raise UserError(
                f"cannot fold: {int(bad.sum())} of {values.numel()} components of {name}.omega are "
                f"{what}, and folding divides by them"
            )


def _require_finite(state: Mapping[str, Tensor], key: str, cause: str) -> None:
    if not torch.isfinite(state[key]).all():
        raise UserError(
            f"cannot fold: {key} would leave the range of {state[key].dtype} because of {cause}"
        )


def _constant(name: str, factor: Factor) -> float:
    """`factor` as one positive number.

    Raises:
        UserError: it differs by component, or is negative.
    """
    values = torch.as_tensor(factor).reshape(-1)
    if not (values == values[0]).all() or values[0] < 0:
        raise UserError(
            f"cannot fold: the factor of {name}, the first sublayer of its stack, is not one positive "
            "number, and there is no LayerNorm before it that could take it up"
        )
    return float(values[0])
