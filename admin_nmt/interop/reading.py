"""Open checkpoints of other repositories, as safely as our own."""

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.errors import UserError


@dataclass(frozen=True)
class Foreign:
    """A checkpoint of another repository.

    Attributes:
        checkpoint: what is in the file.
        settings: of the model (and of the rest of the run, where fairseq kept both in one place).
        task: settings of the task.
        arch: what was given to `--arch`, None if unknown.
    """

    checkpoint: Checkpoint
    settings: dict[str, Any]
    task: dict[str, Any]
    arch: str | None

    @property
    def path(self) -> Path:
        """The file."""
        return self.checkpoint.path

    def flag(self, name: str) -> bool:
        """An option without a value."""
        return self.settings.get(name) is True


def open_foreign(path: str | Path) -> Foreign:
    """Read a checkpoint of an encoder-decoder Transformer that any fairseq wrote.

    Raises:
        UserError: missing, corrupt or cut off, without settings, of another kind of model, or
            written by admin_nmt.
    """
    checkpoint = Checkpoint.open(path)
    config = checkpoint.state.get("cfg")
    if config is not None:
        settings, task = _plain(config.get("model")), _plain(config.get("task"))
    else:
        settings = _plain(checkpoint.state.get("args"))
        task = settings
    if not settings:
        raise UserError(f"checkpoint {path} has no settings (args or cfg) that describe its model")
    arch = checkpoint.architecture
    foreign = Foreign(checkpoint, settings, task, arch if isinstance(arch, str) else None)
    _require_translation(foreign)
    return foreign


def _plain(section: Any) -> dict[str, Any]:
    """A section of settings as a dictionary."""
    if isinstance(section, Namespace):
        section = vars(section)
    return {str(name): value for name, value in (section or {}).items()}


def _require_translation(foreign: Foreign) -> None:
    kind = foreign.checkpoint.family
    if kind == "admin_transformer":
        raise UserError(
            f"checkpoint {foreign.path} is of {foreign.arch}, which needs no conversion"
        )
    if kind not in (None, "transformer"):
        raise UserError(
            f"checkpoint {foreign.path} is of architecture {foreign.arch}; only encoder-decoder "
            "Transformers can be converted"
        )
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        table = foreign.checkpoint.weights.get(name)
        if table is None or table.dim() != 2:
            raise UserError(
                f"checkpoint {foreign.path} has no {name}: only encoder-decoder Transformers can be "
                "converted"
            )
