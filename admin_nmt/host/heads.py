"""Heads of a training: taken over from a pruned or masked checkpoint, masks given as files, and masks that
no pruning could follow."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.checkpoints.settings import set_values
from admin_nmt.errors import UsageError
from admin_nmt.host.ours import is_our_architecture, is_ours
from admin_nmt.host.patch import Patch, Scope
from admin_nmt.models.head_files import read_heads

#: fairseq's default of `--restore-file`: a bare name, which it looks for in --save-dir.
DEFAULT_RESTORE_FILE = "checkpoint_last.pt"
#: Options about heads that a checkpoint carries.
HEAD_SETTINGS = ("heads_per_layer", "head_mask")


def _with_heads(build_model: Callable) -> Callable:
    """A model starts with the heads of the checkpoint that training continues from, and checkpoints keep the
    list of masked heads instead of the name of a file."""

    @wraps(build_model)
    def wrapped(cfg: Any, task: Any, from_checkpoint: bool = False) -> Any:
        ours = is_our_architecture(getattr(cfg, "arch", None) or getattr(cfg, "_name", None))
        # What a checkpoint's own training began with is in its settings, as far as it counts.
        if ours and not from_checkpoint:
            take_over_heads(cfg)
        return build_model(cfg, task, from_checkpoint)

    return wrapped


def take_over_heads(args: Any) -> None:
    """Complete the options about heads in place, so that checkpoints carry them.

    A mask file becomes the list in it, and a list of `fairseq-hydra-train`
    (`model.head_mask=[E:1:3,A:2:1]`) becomes text. Training that continues from a pruned or masked
    checkpoint (`--finetune-from-model`, `--restore-file`) takes over its heads and its mask.
    """
    for name, joint in (("head_mask", ","), ("heads_per_layer", " ")):
        given = getattr(args, name, None)
        if given is not None and not isinstance(given, str):
            set_values(args, {name: joint.join(map(str, given))})
    values: dict[str, str] = {}
    if getattr(args, "head_mask", None):
        values["head_mask"] = read_mask(args.head_mask)
    if getattr(args, "heads_per_layer", None) is None:
        for option in ("finetune_from_model", "restore_file"):
            path = getattr(args, option, None)
            if path and path != DEFAULT_RESTORE_FILE and Path(path).is_file():
                values |= {
                    name: value
                    for name, value in _settings_of_checkpoint(path).items()
                    if getattr(args, name, None) is None
                }
                break
    set_values(args, values)


def _settings_of_checkpoint(path: str) -> dict[str, str]:
    """The settings about heads of a checkpoint; empty where it has all of them, unmasked."""
    checkpoint = Checkpoint.open(path)
    return {name: str(checkpoint.setting("model", name) or "") for name in HEAD_SETTINGS}


def read_mask(given: str) -> str:
    """The list of heads that `--head-mask` means; see `read_heads`."""
    return ",".join(map(str, read_heads(given, "--head-mask"))) if given else ""


def _with_aligned_heads_open(init: Callable) -> Callable:
    """A training that masks heads which are trained to align words is refused: their attention is used
    outside the model, so `admin-nmt prune` could not remove them."""

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        from admin_nmt.models.heads import aligned_heads

        init(self, *args, **kwargs)
        if not is_ours(self):
            return
        cfg = self.get_model().cfg
        if both := sorted(aligned_heads(cfg).intersection(cfg.masked_heads)):
            raise UsageError(
                f"--head-mask {','.join(map(str, both))}: alignments of words come from there "
                f"(--alignment-layer {cfg.alignment_layer}); mask other heads"
            )

    return wrapped


PATCHES = (
    Patch("fairseq.models", "build_model", _with_heads, Scope.OURS),
    Patch("fairseq.trainer:Trainer", "__init__", _with_aligned_heads_open, Scope.OURS),
)
