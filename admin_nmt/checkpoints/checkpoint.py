"""A fairseq checkpoint as an immutable object: safe loading, checks, settings and languages, saving.

```python
from admin_nmt.checkpoints import Checkpoint, average
from admin_nmt.export import fold
from admin_nmt.pruning import prune

mean = average([Checkpoint.open(path) for path in paths])
plain, report = fold(mean)
plain.save("plain.pt")
```

Functions from checkpoints to checkpoints never change their argument.
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.checkpoints.reading import open_checkpoint
from admin_nmt.checkpoints.settings import (
    architecture,
    data_folder,
    languages,
    set_values,
    setting,
)
from admin_nmt.checkpoints.stock import untrained
from admin_nmt.checkpoints.validation import of_another_repository
from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write

#: Registered models that are Transformers of the kind that we know inside: ours, and fairseq's own.
TRANSFORMERS = ("admin_transformer", "transformer")
#: Where checkpoints of 16-bit trainings keep the weights in float32, in `last_optimizer_state`.
FLOAT32_COPIES = "fp32_params"
#: Where checkpoints keep the moving average of `--store-ema`, in `extra_state`.
MOVING_AVERAGE = ("ema", "ema_fp32_params")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What one checkpoint file holds; its tensors stay on disk until they are used.

    Attributes:
        path: where it was read from, or of the checkpoint that it was made from.
        state: the dictionary in the file: `model` (the weights), `cfg` or `args`, `extra_state`, ...
    """

    path: Path
    state: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Checkpoint":
        """Read a checkpoint file without running code from it.

        Raises:
            UserError: missing, corrupt or cut off, not a fairseq checkpoint, or with foreign objects.
        """
        return cls(Path(path), open_checkpoint(Path(path)))

    @property
    def weights(self) -> dict[str, Tensor]:
        """Name -> tensor, as in the file; tied tensors share their memory."""
        return self.state["model"]

    @cached_property
    def architecture(self) -> str | None:
        """The name given to `--arch`, None if the checkpoint does not say."""
        return architecture(self.state)

    @cached_property
    def family(self) -> str | None:
        """The registered model behind the architecture (`admin_transformer`, `transformer`, ...),
        None where the architecture is unknown here."""
        from fairseq.models import ARCH_MODEL_NAME_REGISTRY, MODEL_REGISTRY

        arch = str(self.architecture)
        return ARCH_MODEL_NAME_REGISTRY.get(arch, arch if arch in MODEL_REGISTRY else None)

    @cached_property
    def languages(self) -> tuple[str | None, str | None]:
        """(source, target) that it was trained on, None where that is not known."""
        return languages(self.state)

    @property
    def data_folder(self) -> Path | None:
        """The (first) data folder that it was trained on, None if it does not say."""
        return data_folder(self.state)

    @property
    def num_updates(self) -> int | None:
        """Updates of the training so far, None if the checkpoint does not say."""
        return (self.state.get("optimizer_history") or [{}])[-1].get("num_updates")

    def setting(self, group: str, name: str) -> Any:
        """One setting of the training run (`setting("model", "arch")`), None if it is not there."""
        return setting(self.state, group, name)

    def require_family(self, families: Mapping[str, Any] | tuple[str, ...], purpose: str) -> str:
        """The family, if it is one of `families`.

        Args:
            families: names of registered models.
            purpose: what only these can be, for the message (`"be folded"`).

        Raises:
            UserError: it is another one, or one of a fork of fairseq that has to be converted.
        """
        foreign = of_another_repository(self.weights)
        if foreign:
            raise UserError(f"checkpoint {self.path} {foreign}")
        if self.family not in families:
            names = " and ".join(f"{family}*" for family in families)
            raise UserError(
                f"checkpoint {self.path} is of architecture {self.architecture or 'unknown'}; only "
                f"{names} can {purpose}"
            )
        return str(self.family)

    def replaced(
        self,
        weights: Mapping[str, Tensor],
        model_settings: Mapping[str, Any],
        task_settings: Mapping[str, Any] | None = None,
    ) -> "Checkpoint":
        """A checkpoint with other weights and some other settings of model and task, from which a new
        training starts at its beginning (`stock.untrained`)."""
        state = dict(self.state) | {"model": dict(weights)} | untrained(self.num_updates or 0)
        changed = {"model": dict(model_settings), "task": dict(task_settings or {})}
        if state.get("cfg") is not None:
            state["cfg"] = dict(state["cfg"])
            for group, values in changed.items():
                if values:
                    state["cfg"][group] = copy.copy(state["cfg"].get(group) or {})
                    set_values(state["cfg"][group], values)
        if state.get("args") is not None:
            state["args"] = copy.copy(state["args"])
            set_values(state["args"], changed["model"] | changed["task"])
        return Checkpoint(self.path, state)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        with atomic_write(path, "wb") as stream:
            try:
                torch.save(dict(self.state), stream)
            except RuntimeError as error:
                # PyTorch reports a full disk this way.
                raise UserError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
