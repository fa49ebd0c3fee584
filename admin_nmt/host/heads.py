"""Heads of a training that goes on from a pruned or masked checkpoint, and masks given as files."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.checkpoints.settings import set_values
from admin_nmt.documents import read_document
from admin_nmt.errors import UsageError, UserError
from admin_nmt.host.patch import Patch, Scope
from admin_nmt.models.heads import DOCUMENT, VERSION
from admin_nmt.modules.heads import Head, parse_heads

#: fairseq's default of `--restore-file`.
_DEFAULT_RESTORE_FILE = "checkpoint_last.pt"
#: Options about heads that a checkpoint carries.
_SETTINGS = ("heads_per_layer", "head_mask")


def _with_heads(build_model: Callable) -> Callable:
    """A model starts with the heads of the checkpoint that it goes on from, and checkpoints keep the
    list of masked heads instead of the name of a file."""

    @wraps(build_model)
    def wrapped(cfg: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
        if is_ours(cfg):
            take_over_heads(cfg)
        return build_model(cfg, task, *args, **kwargs)

    return wrapped


def is_ours(cfg: Any) -> bool:
    """Whether the settings of a model are of an `admin_transformer`."""
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY

    arch = str(getattr(cfg, "arch", None) or getattr(cfg, "_name", None))
    return ARCH_MODEL_NAME_REGISTRY.get(arch, arch) == "admin_transformer"


def take_over_heads(args: Any) -> None:
    """Complete the options about heads in place, so that checkpoints carry them.

    A mask file becomes the list in it. Training that goes on from a pruned or masked checkpoint
    (`--finetune-from-model`, `--restore-file`) takes over its heads and its mask.
    """
    values: dict[str, str] = {}
    if getattr(args, "head_mask", None):
        values["head_mask"] = read_mask(args.head_mask)
    # None only before training: a checkpoint says at least that nothing was removed.
    if getattr(args, "heads_per_layer", None) is None:
        for option in ("finetune_from_model", "restore_file"):
            path = getattr(args, option, None)
            # The default is a bare name: fairseq looks for that name in --save-dir.
            if path and path != _DEFAULT_RESTORE_FILE and Path(path).is_file():
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
    return {name: str(checkpoint.setting("model", name) or "") for name in _SETTINGS}


def read_mask(given: str) -> str:
    """The list of heads that `--head-mask` means; see `read_heads`."""
    return ",".join(map(str, read_heads(given, "--head-mask"))) if given else ""


def read_heads(given: str, option: str) -> list[Head]:
    """The heads that an option means: a list such as `E:1:3,A:2:1`, or a file.

    The file is one that `admin-nmt prune --list` wrote (or JSON with its key `removed`), or text: the
    descriptors of Michel et al.'s code (`E:1:2 A:3:4,5`), separated by spaces, commas or line ends;
    what follows a `#` is left out.

    Raises:
        UserError: the file cannot be read, or names no heads.
        UsageError: neither a file nor a list of heads.
    """
    try:
        return parse_heads(given, option)
    except UsageError:
        # `Path.exists` raises on strings longer than a file name may be; `os.path.exists` does not.
        if not os.path.exists(given):  # noqa: PTH110
            if Path(given).suffix or os.sep in given:
                raise UserError(f"{option}: file not found: {given}") from None
            raise
    try:
        text = Path(given).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {given}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {given} is not a text file") from error
    if text.lstrip().startswith(("{", "[")):
        content = read_document(given, DOCUMENT, VERSION, "admin-nmt prune --list")
        removed = content.get("removed")
        if not isinstance(removed, list):
            raise UserError(
                f"{option} {given} names no heads; 'admin-nmt prune --list' writes such a file"
            )
        return parse_heads(",".join(map(str, removed)), f"{option} {given}") if removed else []
    words = " ".join(line.partition("#")[0] for line in text.splitlines())
    if not words.strip():
        raise UserError(f"{option} {given} names no heads")
    return parse_heads(words, f"{option} {given}")


PATCHES = (Patch("fairseq.models", "build_model", _with_heads, Scope.OURS),)
