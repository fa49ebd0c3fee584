"""Models with residual connections of admin-torch 0.1.0 (`as_module`, `as_buffer`, `as_parameter`).

Users put them into fairseq's layers under names of their own, so that an omega's name only has to
say which sublayer it belongs to: `residual_attn.omega`, `attn_omega`, `encoder_attn_residual.omega`,
`ffn_omega` ... Each is one number (a buffer) or (D,) (trained).

Where all of a stack's omegas are admin-torch's constants for its depth, and untrained, the model is
`--init-type admin-log` or `admin-const`; otherwise `--init-type admin`.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.errors import UserError
from admin_nmt.initialization.analytic import omega_const, omega_log
from admin_nmt.initialization.scheme import Stack
from admin_nmt.interop.reading import Foreign
from admin_nmt.interop.transformer_clinic import RATIOS, take_over_omegas
from admin_nmt.interop.writing import Converted, Taken, complete_settings, converted

#: Part of an omega's name inside its layer -> residual connection; the first that is found counts.
_SUBLAYERS = {
    r"encoder_attn|cross|enc_?attn|encdec": "encoder_attn_residual",
    r"ffn|fcn?|mlp|feed_?forward|final": "ffn_residual",
    r"att": "self_attn_residual",
}
Omegas = dict[Stack, dict[tuple[int, str], Tensor]]


def convert(path: str | Path) -> Converted:
    """A checkpoint of a fairseq Transformer with admin-torch's residual connections as one of
    `admin_transformer`.

    Raises:
        UserError: no such checkpoint, or one that is damaged or cannot be represented.
    """
    return converted(path, _take_over)


def _take_over(foreign: Foreign, model: dict[str, Tensor]) -> Taken:
    omegas: Omegas = {stack: _take_omegas(model, stack) for stack in RATIOS}
    if not any(omegas.values()):
        raise UserError("it has no omega of admin-torch; a plain one is --from fairseq")
    for option in ("encoder_normalize_before", "decoder_normalize_before"):
        if foreign.settings.get(option):
            raise UserError(f"--{option.replace('_', '-')}: ADMIN is defined for post-LN only")
    trained = any(omega.numel() > 1 for of_stack in omegas.values() for omega in of_stack.values())
    settings = complete_settings(
        foreign, model, "admin_transformer", init_type="admin", admin_freeze_omega=not trained
    )
    complete = {stack: _complete(of_stack, settings, stack) for stack, of_stack in omegas.items()}
    lines = []
    settings["init_type"] = "admin" if trained else _analytic(complete, settings)
    if settings["init_type"] == "admin":
        lines += take_over_omegas(model, settings, complete)
    else:
        for stack, of_stack in complete.items():
            for (layer, residual), omega in of_stack.items():
                if (layer, residual) != (0, "self_attn_residual"):
                    model[f"{stack}.layers.{layer}.{residual}.omega"] = omega
    how = "trained" if trained else "fixed (--admin-freeze-omega)"
    lines.insert(0, f"--init-type {settings['init_type']}, omegas {how}")
    return settings, lines


def _take_omegas(model: dict[str, Tensor], stack: Stack) -> dict[tuple[int, str], Tensor]:
    """Remove the omegas of a stack from a state dict: (layer, connection) -> (1,) or (D,)."""
    found: dict[tuple[int, str], Tensor] = {}
    for name in list(model):
        match = re.fullmatch(rf"{stack}\.layers\.(\d+)\.(.*omega.*)", name)
        if not match:
            continue
        residual = next(
            (residual for part, residual in _SUBLAYERS.items() if re.search(part, match[2])), None
        )
        if residual not in RATIOS[stack].values():
            raise UserError(f"the name of {name} does not say to which sublayer it belongs")
        if (int(match[1]), str(residual)) in found:
            raise UserError(f"{name} is the second omega of its sublayer")
        found[int(match[1]), str(residual)] = model.pop(name)
    return found


def _complete(
    of_stack: dict[tuple[int, str], Tensor], settings: dict[str, Any], stack: Stack
) -> dict[tuple[int, str], Tensor]:
    """Numbers as vectors; 1 throughout for a stack that admin-torch was not used in."""
    width, layers = settings[f"{stack}_embed_dim"], settings[f"{stack}_layers"]
    places = [(layer, residual) for layer in range(layers) for residual in RATIOS[stack].values()]
    if not of_stack:
        return {place: torch.ones(width) for place in places}
    return {
        place: omega.reshape(1).repeat(width) if omega.numel() == 1 else omega
        for place, omega in of_stack.items()
    }


def _analytic(omegas: Omegas, settings: dict[str, Any]) -> str:
    """The scheme that has just these constants: `admin-log`, `admin-const`, or `admin`."""
    for name, formula in (("admin-log", omega_log), ("admin-const", omega_const)):
        if all(
            torch.allclose(
                torch.stack([*of_stack.values()]).double(),
                torch.tensor(
                    formula(len(RATIOS[stack]) * settings[f"{stack}_layers"]), dtype=torch.double
                ),
                rtol=1e-6,
                atol=0,
            )
            and len(of_stack) == len(RATIOS[stack]) * settings[f"{stack}_layers"]
            for stack, of_stack in omegas.items()
        ):
            return name
    return "admin"
