"""The files about heads: scores of one or more checkpoints, and lists of removed heads.

Each score belongs to one model, which is recognised by a fingerprint of its weights and its mask.
"""

import dataclasses
import glob
import hashlib
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.errors import UserError
from admin_nmt.files import sha256
from admin_nmt.json_files import read_document, write_document
from admin_nmt.models.config import function_options
from admin_nmt.models.head_files import DOCUMENT, VERSION
from admin_nmt.modules.head_names import Head, Layout
from admin_nmt.option_names import plain_value
from admin_nmt.pruning.importance import NORMALIZATIONS, normalize_by_layer, ranking


@dataclass(frozen=True)
class Measurement:
    """Importance of every head of one checkpoint.

    Attributes:
        checkpoint: file name.
        fingerprint: of the model, see `fingerprint`.
        layout: kind -> heads of each layer.
        scores: kind -> layer -> head -> score, as measured (not normalised).
        settings: how it was measured: data, subset, granularity, numbers of batches and examples.
    """

    checkpoint: str
    fingerprint: str
    layout: dict[str, tuple[int, ...]]
    scores: dict[str, list[list[float]]]
    settings: dict[str, Any] = field(default_factory=dict)

    def order(self, normalize: str = "layer") -> list[Head]:
        """All heads, the least important first; `normalize` is a key of `NORMALIZATIONS`."""
        return ranking(NORMALIZATIONS[normalize](self.scores))


#: Settings in every fingerprint, in this order: files hold fingerprints.
_FINGERPRINTED = ("heads_per_layer", "head_mask", "residual_attention", "residual_attention_reduce")


def fingerprint(model: Any) -> str:
    """Hexadecimal SHA-256 of what an `admin_transformer` computes with: its weights in float32, and
    the settings that change what they mean.

    `init_type` is left out: models of two schemes never have the same weights after training. Options
    that came after `_FINGERPRINTED` count where they are used.
    """
    digest = hashlib.sha256()
    for name in _FINGERPRINTED:
        digest.update(f"{name}={getattr(model.cfg, name) or ''}\n".encode())
    for name, plain in sorted(function_options().items()):
        value = plain_value(getattr(model.cfg, name))
        if name not in ("init_type", *_FINGERPRINTED) and value != plain:
            digest.update(f"{name}={value}\n".encode())
    state_dict: Mapping[str, Tensor] = model.state_dict()
    for name in sorted(state_dict):
        value = state_dict[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(name.encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()


def checksums(data: str | os.PathLike[str], subset: str) -> dict[str, str]:
    """SHA-256 of both sides of a subset, by file name (`test.de-en.de.bin`); of all its language pairs,
    so that models of either direction find the same. Empty where no text was binarised.

    Raises:
        OSError: a file cannot be read.
    """
    files = sorted(Path(data).glob(f"{glob.escape(subset)}.*.bin"))
    return {path.name: sha256(path) for path in files}


def save_measurements(measurements: Sequence[Measurement], path: str | os.PathLike[str]) -> None:
    """Write scores as JSON, with what is read off them: normalised scores and the order."""
    entries = [
        dataclasses.asdict(measurement)
        | {
            "normalized": normalize_by_layer(measurement.scores),
            "order": list(map(str, measurement.order())),
        }
        for measurement in measurements
    ]
    write_document(path, DOCUMENT, VERSION, {"measurements": entries})


def save_removed(
    removed: Collection[Head],
    checkpoint: str,
    fingerprint: str,
    layout: Layout,
    path: str | os.PathLike[str],
) -> None:
    """Write a list of heads, to be masked by `fairseq-train --head-mask`."""
    content = {
        "checkpoint": checkpoint,
        "fingerprint": fingerprint,
        "layout": {kind: list(counts) for kind, counts in layout.items()},
        "removed": list(map(str, sorted(removed))),
    }
    write_document(path, DOCUMENT, VERSION, content)


def load_measurements(path: str | os.PathLike[str]) -> list[Measurement]:
    """Read what `save_measurements` wrote.

    Raises:
        UserError: the file is missing, or has another form.
    """
    content = read_document(path, DOCUMENT, VERSION, "admin-nmt importance")
    if "measurements" not in content:
        raise UserError(f"{path} holds no importance scores; make them with 'admin-nmt importance'")
    try:
        return [_measurement(entry) for entry in content["measurements"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _measurement(entry: dict[str, Any]) -> Measurement:
    layout = {kind: tuple(map(int, counts)) for kind, counts in entry["layout"].items()}
    scores = {
        kind: [[float(score) for score in layer] for layer in layers]
        for kind, layers in entry["scores"].items()
    }
    if {kind: tuple(map(len, layers)) for kind, layers in scores.items()} != layout:
        raise ValueError("scores and head counts disagree")
    if not all(
        math.isfinite(score) for layers in scores.values() for layer in layers for score in layer
    ):
        raise ValueError("a score is not finite")
    return Measurement(
        str(entry["checkpoint"]), str(entry["fingerprint"]), layout, scores, entry["settings"]
    )


def measurement_of(
    measurements: Sequence[Measurement], model_fingerprint: str, checkpoint: str, origin: str
) -> Measurement:
    """The measurement of the model with this fingerprint.

    Raises:
        UserError: the scores in `origin` are of other models only.
    """
    for measurement in measurements:
        if measurement.fingerprint == model_fingerprint:
            return measurement
    known = ", ".join(measurement.checkpoint for measurement in measurements)
    raise UserError(
        f"{origin} holds the importance of another model ({known or 'none'}), not of {checkpoint}; "
        "measure it with 'admin-nmt importance'"
    )
