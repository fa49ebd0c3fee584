"""What a fairseq checkpoint says about itself, whichever of fairseq's two ways it says it in."""

from pathlib import Path
from typing import Any

import torch

from admin_nmt.compat import load_checkpoint_file
from admin_nmt.errors import UserError


def open_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint and leave its tensors on disk until they are used.

    Raises:
        UserError: missing, corrupt or cut off, or no fairseq checkpoint.
    """
    # Files written before PyTorch 1.6 are not zip files, and only those can be mapped.
    path = Path(path)
    state = load_checkpoint_file(path, mmap=path.is_file() and _is_zip(path))
    for name, value in state["model"].items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{path} is not a fairseq checkpoint: model entry {name} is no tensor")
    return state


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def setting(state: dict[str, Any], group: str, name: str) -> Any:
    """One setting of the training run, or None: from `cfg` (`cfg.model.arch`), else from `args`."""
    config = state.get("cfg")
    if config is not None:
        return _get(_get(config, group), name)
    return _get(state.get("args"), name)


def _get(container: Any, name: str) -> Any:
    if isinstance(container, dict):
        return container.get(name)
    return getattr(container, name, None)


def architecture(state: dict[str, Any]) -> str | None:
    """The name given to `--arch`, None if the checkpoint does not say."""
    return setting(state, "model", "arch") or setting(state, "model", "_name")
