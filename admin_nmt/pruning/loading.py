"""A checkpoint as an `admin_transformer` in memory, with its data.

fairseq's own `transformer` is read as `admin_transformer` with plain residuals, to which it is equal;
so everything here has one kind of attention to deal with.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch

from admin_nmt.checkpoints.checkpoint import TRANSFORMERS, Checkpoint
from admin_nmt.checkpoints.direction import find_direction, require_fitting_vocabulary
from admin_nmt.checkpoints.settings import set_values
from admin_nmt.pruning.records import fingerprint


def plain_options() -> dict[str, Any]:
    """The settings that make fairseq's Transformer an `admin_transformer`."""
    from admin_nmt.models.config import our_options

    names = dict.fromkeys(("arch", "_name"), "admin_transformer")
    return names | {option.name: option.metadata["plain"] for option in our_options()}


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode whose parameters need no gradients.

    Attributes:
        checkpoint: opened.
        model: an `AdminTransformerModel` on its device, float32.
        task: fairseq's translation task over the data folder.
        layout: kind -> heads of each layer.
        fingerprint: see `pruning.records.fingerprint`.
    """

    checkpoint: Checkpoint
    model: Any
    task: Any
    layout: dict[str, tuple[int, ...]]
    fingerprint: str

    @property
    def path(self) -> str:
        """The checkpoint's file."""
        return str(self.checkpoint.path)


_PURPOSE = "have heads measured and removed"


def is_stock(checkpoint: Checkpoint, purpose: str = _PURPOSE) -> bool:
    """Whether a checkpoint is of fairseq's `transformer`, not of `admin_transformer`.

    Raises:
        UserError: it is of neither, and says that only these can do what `purpose` says.
    """
    return checkpoint.require_family(TRANSFORMERS, purpose) == "transformer"


def load_model(
    path: str,
    data: str | os.PathLike[str],
    *,
    subset: str,
    source: str | None = None,
    target: str | None = None,
    cpu: bool = False,
    option: str = "--gen-subset",
    purpose: str = _PURPOSE,
) -> LoadedModel:
    """Read one checkpoint and the dictionaries of a data folder that has `subset`, which `option` names.

    Raises:
        UserError: bad checkpoint or data, or a checkpoint of another kind of model, which cannot do what
            `purpose` says.
    """
    from fairseq import checkpoint_utils
    from fairseq.modules.checkpoint_activations import unwrap_checkpoint

    checkpoint = Checkpoint.open(path)
    stock = is_stock(checkpoint, purpose)
    source, target = find_direction(data, subset, source, target, checkpoint.languages, option)
    require_fitting_vocabulary(checkpoint, data, source, target)
    state = checkpoint_utils.load_checkpoint_to_cpu(path)
    set_values(state["cfg"].task, {"data": str(data), "source_lang": source, "target_lang": target})
    if stock:
        set_values(state["cfg"].model, plain_options())
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([path], state=state)
    model: Any = unwrap_checkpoint(models[0]).float().eval().requires_grad_(False)
    mark = fingerprint(model)
    if torch.cuda.is_available() and not cpu:
        model.cuda()
    return LoadedModel(checkpoint, model, task, model.cfg.layout, mark)
