"""Measuring the variances of all sublayers in one forward pass, and setting ADMIN's omegas.

The pass runs a float32 copy of the model, without layer drop and activation checkpointing, with a random
seed of its own. The model itself and the random state of the training that follows are untouched until
`apply_profile` writes the omegas.
"""

import copy
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.modules.checkpoint_activations import unwrap_checkpoint
from torch import Tensor, nn

from admin_nmt.errors import UserError
from admin_nmt.initialization.admin import next_omega
from admin_nmt.json_files import read_document, write_document
from admin_nmt.modules.residual import Residual, ReZeroResidual, ScaledResidual
from admin_nmt.modules.score_chain import ScoreChain
from admin_nmt.modules.walk import all_layers
from admin_nmt.option_names import flag, plain_value

DOCUMENT, VERSION = "profile", 1


@dataclass(frozen=True)
class SublayerProfile:
    """The variances measured at one residual connection.

    Attributes:
        omega: factor on the shortcut during the pass; a list of D numbers if it differs by
            component (only in files written by hand).
        shortcut_variance: Var[omega * x_{i-1}]; None if unknown.
        branch_variance: Var[f_i(x_{i-1})]; None if unknown.
    """

    omega: float | list[float]
    shortcut_variance: float | None = None
    branch_variance: float | None = None


@dataclass
class Profile:
    """Sublayers by module name in forward order, and how they were measured."""

    sublayers: dict[str, SublayerProfile]
    measured: dict[str, Any] = field(default_factory=dict)

    def stack(self, name: str) -> dict[str, SublayerProfile]:
        """The sublayers of `"encoder"` or `"decoder"`."""
        return {key: value for key, value in self.sublayers.items() if key.startswith(name + ".")}


class _Recorder:
    """Pre-forward hook on every residual connection of one stack, in forward order."""

    def __init__(self, set_omegas: bool) -> None:
        self.set_omegas = set_omegas
        self.omega = 1.0
        self.records: dict[str, SublayerProfile] = {}

    def attach(self, name: str, residual: Residual) -> Any:
        """Start recording `residual` under `name`; returns the hook's handle."""

        def record(module: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
            self._record(name, residual, *inputs)

        return residual.register_forward_pre_hook(record)

    def _record(self, name: str, residual: Residual, branch: Tensor, shortcut: Tensor) -> None:
        if isinstance(residual, ScaledResidual):
            if self.set_omegas:
                residual.set_omega(self.omega)
            omega = residual.omega.float().mean().item()
            scaled = shortcut.float() * residual.omega.float()
        else:
            omega = 1.0 if residual.constant is None else residual.constant
            scaled = shortcut.float() * omega
        if isinstance(residual, ReZeroResidual):
            branch = branch * residual.alpha
        shortcut_variance = scaled.var(correction=0).item()
        branch_variance = branch.float().var(correction=0).item()
        self.records[name] = SublayerProfile(omega, shortcut_variance, branch_variance)
        self.omega = next_omega(shortcut_variance, branch_variance)


def _float32_copy(model: Any) -> Any:
    """A float32 copy of `model` in training mode that runs every layer, plainly."""
    twin = unwrap_checkpoint(copy.deepcopy(model))
    for stack in (twin.encoder, twin.decoder):
        if isinstance(stack.layers, ScoreChain):
            stack.layers.p = 0.0
        else:
            # fairseq's list skips layers, and draws random numbers even with probability 0.
            stack.layers = nn.ModuleList(all_layers(stack.layers))
    return twin.float().train()


def measure_profile(model: Any, samples: Iterable[Mapping[str, Any]], seed: int) -> Profile:
    """Run one forward pass per sample on a copy of `model` and record every residual connection.

    For ADMIN (arXiv 2004.08249) the omegas are set on the way, unless the model has its own already
    (`omegas_ready`): omega_{i+1} follows from what sublayer i showed under omega_1 .. omega_i, in the
    same pass. Several samples are averaged in
    omega^2 and in the variances.

    Args:
        model: an `AdminTransformerModel`; not changed.
        samples: fairseq batches (`net_input` with `src_tokens`, `src_lengths`,
            `prev_output_tokens`) on the model's device.
        seed: of the dropout masks.

    Returns:
        the profile, omegas as of this pass.

    Raises:
        UserError: a variance is not finite.
    """
    twin = _float32_copy(model)
    passes: list[dict[str, SublayerProfile]] = []
    num_tokens = 0
    device = next(twin.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(seed)
        for sample in samples:
            passes.append(_one_pass(twin, sample, not model.omegas_ready))
            num_tokens += int(sample["ntokens"])
    sublayers = {name: _mean([records[name] for records in passes]) for name in passes[0]}
    for name, sublayer in sublayers.items():
        if not math.isfinite(sublayer.shortcut_variance + sublayer.branch_variance):  # type: ignore[operator]
            raise UserError(f"profiling found a variance that is not finite at {name}")
    return Profile(
        sublayers,
        {"seed": seed, "num_batches": len(passes), "num_target_tokens": num_tokens},
    )


def _one_pass(twin: Any, sample: Mapping[str, Any], set_omegas: bool) -> dict[str, SublayerProfile]:
    """Records of one forward pass; each stack has its own recurrence."""
    recorders = {"encoder": _Recorder(set_omegas), "decoder": _Recorder(set_omegas)}
    handles = [
        recorders[name.split(".", 1)[0]].attach(name, residual)
        for name, residual in twin.residuals()
    ]
    try:
        twin(**sample["net_input"], features_only=True)
    finally:
        for handle in handles:
            handle.remove()
    return recorders["encoder"].records | recorders["decoder"].records


def _mean(records: Sequence[SublayerProfile]) -> SublayerProfile:
    """Average of one sublayer over passes: variances, and omega in the square."""

    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values)

    if len(records) == 1:
        return records[0]
    return SublayerProfile(
        math.sqrt(mean([record.omega**2 for record in records])),  # type: ignore[operator]
        mean([record.shortcut_variance for record in records]),  # type: ignore[misc]
        mean([record.branch_variance for record in records]),  # type: ignore[misc]
    )


def apply_profile(model: Any, profile: Profile, source: str = "the profile") -> None:
    """Write the omegas of `profile` into `model`, in place and in its dtype.

    Raises:
        UserError: an entry is missing, extra or of the wrong size, or the profile was measured on a
            model of other sizes or of another scheme; it names `source` and the entry. The model is
            unchanged then.
    """
    _require_same_sizes(model, profile, source)
    residuals = dict(model.residuals())
    missing = [name for name in residuals if name not in profile.sublayers]
    if missing:
        raise UserError(
            f"{source} has no entry for {missing[0]} ({len(missing)} of {len(residuals)} missing): "
            "it belongs to another model"
        )
    extra = [name for name in profile.sublayers if name not in residuals]
    if extra:
        raise UserError(
            f"{source} has an entry {extra[0]} that this model lacks ({len(extra)} such entries): "
            "it belongs to another model"
        )
    for name, residual in residuals.items():
        _check_entry(name, residual, profile.sublayers[name].omega, source)
    for name, residual in residuals.items():
        if isinstance(residual, ScaledResidual):
            residual.set_omega(torch.tensor(profile.sublayers[name].omega))
    model.omegas_ready = True


def model_sizes(model: Any) -> dict[str, Any]:
    """What a profile says of the model that it was measured on: scheme and sizes."""
    cfg = model.cfg
    return {
        "init_type": str(plain_value(cfg.init_type)),
        "encoder_layers": cfg.encoder.layers,
        "decoder_layers": cfg.decoder.layers,
        "encoder_embed_dim": cfg.encoder.embed_dim,
        "decoder_embed_dim": cfg.decoder.embed_dim,
        "encoder_ffn_embed_dim": cfg.encoder.ffn_embed_dim,
        "decoder_ffn_embed_dim": cfg.decoder.ffn_embed_dim,
    }


def _require_same_sizes(model: Any, profile: Profile, source: str) -> None:
    """Refuse variances of another width, and those measured under a scheme without omegas: they would
    fit by name. Depth is left to the names, whose message says more."""
    for key, ours in model_sizes(model).items():
        theirs = profile.measured.get(key, ours)
        if theirs != ours and not key.endswith("_layers"):
            raise UserError(
                f"{source} was measured with {flag(key)} {theirs}, and this model has {ours}: "
                "measure it again with the options of this training"
            )


def _check_entry(name: str, residual: Residual, omega: float | list[float], source: str) -> None:
    """Refuse an omega that does not fit the connection `name`."""
    if isinstance(residual, ScaledResidual):
        size = residual.omega.numel()
        if isinstance(omega, list) and len(omega) != size:
            raise UserError(f"{source}: omega of {name} has {len(omega)} numbers, the model {size}")
    elif omega != 1.0:
        raise UserError(
            f"{source}: omega of {name} is {omega}, but the first residual of a stack is fixed at 1"
        )


def save_profile(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write `profile` as JSON."""
    content = {
        "measured": profile.measured,
        "sublayers": {name: vars(sublayer) for name, sublayer in profile.sublayers.items()},
    }
    write_document(path, DOCUMENT, VERSION, content)


def load_profile(path: str | os.PathLike[str]) -> Profile:
    """Read what `save_profile` wrote.

    Raises:
        UserError: the file is missing, is not such JSON, or has an entry that is not a number.
    """
    content = read_document(path, DOCUMENT, VERSION, "admin-nmt profile")
    entries, measured = content.get("sublayers", {}), content.get("measured", {})
    if not (isinstance(entries, dict) and isinstance(measured, dict)):
        raise UserError(f"profile {path} is damaged: make it again with admin-nmt profile")
    sublayers = {}
    for name, entry in entries.items():
        omega: Any = entry.get("omega") if isinstance(entry, dict) else None
        numbers = omega if isinstance(omega, list) else [omega]
        if not numbers or not all(_is_finite_number(number) for number in numbers):
            raise UserError(f"profile {path}: omega of {name} is not a finite number")
        sublayers[name] = SublayerProfile(
            omega, entry.get("shortcut_variance"), entry.get("branch_variance")
        )
    return Profile(sublayers, measured)


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def profile_batches(
    epoch_itr: Any, num_batches: int, seed: int, prepare: Callable[[Any], Any]
) -> list[Mapping[str, Any]]:
    """Collated training batches for profiling, the same on every rank.

    They are drawn at random (fairseq sorts batches by length) from the batches of all ranks, so
    the number of ranks does not change them.

    Args:
        epoch_itr: fairseq's `EpochBatchIterator` over the training set.
        num_batches: how many; fewer if the data has fewer.
        seed: of the draw.
        prepare: applied to each batch, for example to move it to the GPU.

    Raises:
        UserError: the iterator has no list of batches to draw from, or an empty one.
    """
    batches = list(getattr(epoch_itr, "frozen_batches", None) or [])
    if not batches:
        raise UserError(
            "there are no training batches to profile on (an empty set, or streamed data); "
            "give --admin-profile FILE, or use --init-type admin-log"
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(batches), generator=generator)[:num_batches].tolist()
    dataset = epoch_itr.dataset
    # The noise of fairseq's denoising task is drawn where a sentence is read.
    with torch.random.fork_rng(devices=[]):
        return [prepare(epoch_itr.collate_fn([dataset[i] for i in batches[k]])) for k in chosen]
