"""github.com/LiyuanLucasLiu/Transformer-Clinic (arXiv 2004.08249), a fork of fairseq 0.8.

| `--init-type` there             | there, in layer N                               | here                 |
|---------------------------------|-------------------------------------------------|----------------------|
| `adaptive`, `adaptive-profiling`| `attention_ratio_change`, `fc_ratio_change` of  | `--init-type admin`  |
|                                 | the encoder; `self_ratio_change`,               |                      |
|                                 | `encoder_ratio_change`, `fc_ratio_change` of    |                      |
|                                 | the decoder, each (D,)                          |                      |
| `deepnet`                       | constants from the depth, not in the file       | `--init-type deepnorm` |
| `rezero`                        | `rezero_weight` (1,), one per layer             | `--init-type rezero`, one per sublayer |
| `default`                       | plain, post-LN or pre-LN                        | fairseq's `transformer` |

`looklinear` and `rezero_postln` are choices there that no model can be built with.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.errors import UserError
from admin_nmt.initialization.scheme import Stack
from admin_nmt.interop.first_omega import absorb
from admin_nmt.interop.reading import Foreign
from admin_nmt.interop.writing import Converted, Taken, complete_settings, converted

#: Stack -> name of an omega there -> name of the residual connection here, in forward order.
RATIOS: dict[Stack, dict[str, str]] = {
    "encoder": {"attention_ratio_change": "self_attn_residual", "fc_ratio_change": "ffn_residual"},
    "decoder": {
        "self_ratio_change": "self_attn_residual",
        "encoder_ratio_change": "encoder_attn_residual",
        "fc_ratio_change": "ffn_residual",
    },
}
_INIT_TYPES = {
    "adaptive": "admin",
    "adaptive-profiling": "admin",
    "deepnet": "deepnorm",
    "rezero": "rezero",
    "default": "default",
}


def convert(path: str | Path, option: str = "init_type") -> Converted:
    """A checkpoint of Transformer-Clinic as one of `admin_transformer`; plain ones become fairseq's `transformer`.

    Args:
        path: the file.
        option: the setting there that chooses the initialisation.

    Raises:
        UserError: no such checkpoint, or one that is damaged or cannot be represented.
    """
    return converted(path, partial(_take_over, option))


def _take_over(option: str, foreign: Foreign, model: dict[str, Tensor]) -> Taken:
    given = foreign.settings.get(option, "default")
    name = f"--{option.replace('_', '-')} {str(given)[:40]}"
    if not isinstance(given, str) or given not in _INIT_TYPES:
        raise UserError(f"{name} is not one of {', '.join(_INIT_TYPES)}")
    init_type = _INIT_TYPES[given]
    omegas = {stack: _take_omegas(model, stack) for stack in RATIOS}
    if any(omegas.values()) and init_type != "admin":
        raise UserError(f"it has omegas, although it was trained with {name}")
    if init_type == "default":
        settings = complete_settings(foreign, model, "transformer")
        lines = ["a plain Transformer: kept as fairseq's transformer"]
    else:
        settings = complete_settings(foreign, model, "admin_transformer", init_type=init_type)
        lines = [f"{name} there is --init-type {init_type} here"]
    if init_type == "admin":
        lines += take_over_omegas(model, settings, omegas)
    if init_type == "rezero":
        _spread_rezero(model, settings)
    return settings, lines


def _take_omegas(model: dict[str, Tensor], stack: Stack) -> dict[tuple[int, str], Tensor]:
    """Remove the omegas of a stack from a state dict: (layer, connection) -> (D,)."""
    found = {}
    for name in list(model):
        match = re.fullmatch(rf"{stack}\.layers\.(\d+)\.(\w+_ratio_change)", name)
        if match and match[2] in RATIOS[stack]:
            found[int(match[1]), RATIOS[stack][match[2]]] = model.pop(name)
    return found


def take_over_omegas(
    model: dict[str, Tensor],
    settings: dict[str, Any],
    omegas: dict[Stack, dict[tuple[int, str], Tensor]],
) -> list[str]:
    """Put omegas into a state dict of `--init-type admin`, in place; the first ones are absorbed.

    Args:
        model: state dict in today's names.
        settings: of the model, which absorption changes.
        omegas: stack -> (layer, connection) -> (D,), all of them.

    Returns:
        human-readable summary.

    Raises:
        UserError: one is missing or of another size.
    """
    lines, values = [], []
    for stack, of_stack in omegas.items():
        width = settings[f"{stack}_embed_dim"]
        for layer in range(settings[f"{stack}_layers"]):
            for residual in RATIOS[stack].values():
                omega = of_stack.get((layer, residual))
                where = f"{stack}.layers.{layer}.{residual}"
                if omega is None:
                    raise UserError(f"the omega of {where} is missing")
                if omega.shape != (width,):
                    raise UserError(
                        f"the omega of {where} has shape {tuple(omega.shape)}, not ({width},)"
                    )
                values.append(omega)
                if (layer, residual) == (0, "self_attn_residual"):
                    line = absorb(model, settings, stack, omega)
                    lines += [line] if line else []
                else:
                    model[f"{where}.omega"] = omega
    every = torch.cat(values)
    count = f"{len(values)} omegas taken over, from {every.min():.4g} to {every.max():.4g}"
    return [count, *lines]


def _spread_rezero(model: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """One number per sublayer where there was one per layer."""
    for stack, ratios in RATIOS.items():
        for layer in range(settings[f"{stack}_layers"]):
            weight = model.pop(f"{stack}.layers.{layer}.rezero_weight", None)
            if weight is None or weight.shape != (1,):
                raise UserError(
                    f"{stack}.layers.{layer}.rezero_weight is missing or not a single number"
                )
            for residual in ratios.values():
                model[f"{stack}.layers.{layer}.{residual}.alpha"] = weight.clone()
