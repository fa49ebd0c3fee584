"""What the report shows of a model's weights: omegas at the start and now, heads that are left."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.errors import UserError
from admin_nmt.json_files import read_json
from admin_nmt.models.config import to_config
from admin_nmt.models.head_files import DOCUMENT
from admin_nmt.models.heads import full_layout
from admin_nmt.models.settings import model_settings
from admin_nmt.modules.head_names import KINDS, parse_heads
from admin_nmt.modules.residual import RESIDUALS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OmegaProfile:
    """Omegas of one checkpoint.

    Attributes:
        update: of the checkpoint, None if it does not say.
        means: stack -> mean over the components, of each sublayer in forward order that has one.
        names: stack -> names of these sublayers, such as `layer 3 ffn`.
    """

    update: int | None
    means: dict[str, list[float]]
    names: dict[str, list[str]]


@dataclass(frozen=True)
class HeadMap:
    """A number for each head.

    Attributes:
        title: what the numbers are.
        values: kind -> layer -> head -> number.
        is_kept: the numbers are 1 for a head that is there and 0 for one that is not.
    """

    title: str
    values: dict[str, list[list[float]]]
    is_kept: bool


def order_of(path: Path) -> tuple[float, float] | None:
    """(epoch, update) in the name of a checkpoint of fairseq's; None for other names."""
    found = re.fullmatch(r"checkpoint(?:_(\d+)_(\d+)|(\d+))\.pt", path.name)
    if not found:
        return None
    # The checkpoint of a whole epoch comes after those within it.
    return (float(found[3]), float("inf")) if found[3] else (float(found[1]), float(found[2]))


def first_and_last(folders: Iterable[Path]) -> list[Path]:
    """The earliest checkpoint that was kept, and the latest: `checkpoint_last.pt` where it is."""
    for folder in folders:
        dated = {path: order_of(path) for path in folder.glob("checkpoint*.pt")}
        ordered = sorted((order, path) for path, order in dated.items() if order is not None)
        paths = [path for _, path in ordered]
        if (folder / "checkpoint_last.pt").is_file():
            paths.append(folder / "checkpoint_last.pt")
        if paths:
            return list(dict.fromkeys((paths[0], paths[-1])))
    return []


def omega_profile(omegas: Mapping[str, float], update: int | None) -> OmegaProfile | None:
    """A profile from means by sublayer (`encoder.layers.0.ffn_residual`); None without any."""

    def place(name: str) -> tuple[int, int]:
        return int(name.split(".")[2]), RESIDUALS.index(name.split(".")[3])

    means: dict[str, list[float]] = {}
    names: dict[str, list[str]] = {}
    for stack in ("encoder", "decoder"):
        pattern = rf"{stack}\.layers\.\d+\.({'|'.join(RESIDUALS)})"
        for name in sorted((n for n in omegas if re.fullmatch(pattern, n)), key=place):
            layer, sublayer = place(name)
            means.setdefault(stack, []).append(omegas[name])
            kind = RESIDUALS[sublayer].removesuffix("_residual")
            names.setdefault(stack, []).append(f"layer {layer + 1} {kind}")
    return OmegaProfile(update, means, names) if means else None


def checkpoint_omegas(checkpoint: Checkpoint) -> OmegaProfile | None:
    """Omegas of a checkpoint, None if its model has none."""
    omegas = {
        name.removesuffix(".omega"): tensor.float().mean().item()
        for name, tensor in checkpoint.weights.items()
        if name.endswith(".omega")
    }
    return omega_profile(omegas, checkpoint.num_updates)


def kept_map(checkpoint: Checkpoint) -> HeadMap | None:
    """Heads of a pruned or masked model, None where none is missing.

    Which heads of a layer were removed is not in a checkpoint: those left are drawn first. A mask
    is drawn where it is.
    """
    if checkpoint.family != "admin_transformer":
        return None
    cfg = to_config(model_settings(checkpoint))
    values = {}
    for kind, layers in cfg.heads.items():
        full = full_layout(cfg)[kind]
        values[kind] = [
            [float(head < len(layer.values)) for head in range(count)]
            for layer, count in zip(layers, full, strict=True)
        ]
    for head in cfg.masked_heads:
        values[head.kind][head.layer - 1][head.head - 1] = 0.0
    if all(value for layers in values.values() for layer in layers for value in layer):
        return None
    title = "heads left"
    if cfg.heads_per_layer:
        title += " (their number in each layer, not which)"
    return HeadMap(title, values, is_kept=True)


def document_maps(folders: Iterable[Path]) -> list[HeadMap]:
    """Maps out of the files about heads that `admin-nmt importance` and `prune` write.

    Raises:
        UserError: such a file is damaged.
    """
    found = []
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        with path.open(encoding="utf-8", errors="replace") as stream:
            if f'"admin_nmt {DOCUMENT}"' not in stream.read(200):
                continue
        content = read_json(path)
        try:
            if "removed" in content:
                values = {
                    kind: [[1.0] * count for count in counts]
                    for kind, counts in content["layout"].items()
                }
                for name in content["removed"]:
                    (head,) = parse_heads(name, str(path))
                    values[head.kind][head.layer - 1][head.head - 1] = 0.0
                found.append(HeadMap(f"heads left, {path.name}", values, is_kept=True))
            elif content.get("measurements"):
                last = content["measurements"][-1]
                title = f"importance (norm 1 in each layer), {path.name}"
                found.append(HeadMap(title, last["normalized"], is_kept=False))
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return found


def read_models(folders: Sequence[Path]) -> tuple[list[OmegaProfile], list[HeadMap]]:
    """Omegas at the start and now, and maps of heads, from a run's folders.

    A checkpoint that cannot be read is passed over with a warning: the rest of the report needs none.
    """
    profiles: list[OmegaProfile] = []
    maps = document_maps(folders)
    paths = first_and_last(folders)
    for path in paths:
        try:
            checkpoint = Checkpoint.open(path)
            profile = checkpoint_omegas(checkpoint)
            if profile and all(profile.update != other.update for other in profiles):
                profiles.append(profile)
            kept = kept_map(checkpoint) if path == paths[-1] else None
        except UserError as error:
            logger.warning("%s is passed over: %s", path, error)
            continue
        if kept and not any(other.is_kept for other in maps):
            maps.insert(0, kept)
    return profiles, maps


def kinds_of(maps: Iterable[HeadMap]) -> list[str]:
    """Letters of the kinds that a map has, in their order."""
    present = {kind for found in maps for kind, layers in found.values.items() if layers}
    return [kind for kind in KINDS if kind in present]
