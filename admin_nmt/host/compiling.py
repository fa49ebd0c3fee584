"""`--compile`: the layers are compiled once the model is complete."""

import logging
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import Any

from admin_nmt.errors import UsageError
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope

logger = logging.getLogger(__name__)


def compile_model(trainer: Any) -> None:
    """Compile the layers of the trainer's model if its options say so.

    Raises:
        UsageError: `--ddp-backend fully_sharded`, or no Triton for a GPU.
    """
    from admin_nmt.modules.compiled import compile_layers
    from admin_nmt.modules.walk import all_layers

    model = trainer.get_model()
    if not getattr(model.cfg, "compile", False):
        return
    if trainer.is_fsdp:
        raise UsageError("--compile is not supported with --ddp-backend fully_sharded")
    if trainer.cuda and not find_spec("triton"):
        raise UsageError("--compile needs Triton on a GPU: pip install triton")
    if not trainer.cuda:
        logger.warning("--compile is slower than no --compile on CPUs; it is meant for GPUs")
    for stack in (model.encoder, model.decoder):
        compile_layers(all_layers(stack.layers))


def _with_compiled_layers(build: Callable) -> Callable:
    """`--compile`: layers are compiled when the optimizer is built. By then ADMIN's profile has been
    measured, with hooks that a compiled layer would not call."""

    @wraps(build)
    def _build_optimizer(self: Any) -> None:
        build(self)
        if is_ours(self):
            compile_model(self)

    return _build_optimizer


PATCHES = (Patch("fairseq.trainer:Trainer", "_build_optimizer", _with_compiled_layers, Scope.OURS),)
