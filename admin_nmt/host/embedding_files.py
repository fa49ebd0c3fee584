"""Checkpoints of trainings whose embeddings began as a file (`--encoder-embed-path`)."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.checkpoints.settings import set_values
from admin_nmt.host.patch import Patch, Scope


def _without_embedding_files(load_checkpoint_to_cpu: Callable) -> Callable:
    """A model that is loaded needs no file of `--encoder-embed-path` or `--decoder-embed-path`: its
    embeddings are in the checkpoint. fairseq reads the file first, and fails where it is gone."""

    @wraps(load_checkpoint_to_cpu)
    def wrapped(*args: Any, **kwargs: Any) -> dict[str, Any]:
        state = load_checkpoint_to_cpu(*args, **kwargs)
        model = getattr(state.get("cfg"), "model", None)
        for stack in ("encoder", "decoder"):
            # Of `fairseq-train`, of earlier versions, and of `fairseq-hydra-train`.
            for part, name in (
                (model, f"{stack}_embed_path"),
                (state.get("args"), f"{stack}_embed_path"),
                (getattr(model, stack, None), "embed_path"),
            ):
                if getattr(part, name, None):
                    set_values(part, {name: None})
        return state

    return wrapped


PATCHES = (
    Patch(
        "fairseq.checkpoint_utils",
        "load_checkpoint_to_cpu",
        _without_embedding_files,
        Scope.FAILURES,
    ),
)
