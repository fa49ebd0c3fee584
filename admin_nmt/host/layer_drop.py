"""`--encoder-layerdrop` and `--decoder-layerdrop` on several ranks.

A dropped layer has no gradients in that update, and PyTorch's exchange waits for those of every
parameter unless it is told to look for unused ones (github.com/facebookresearch/fairseq/issues/2389).
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from admin_nmt.host.patch import Patch, Scope

logger = logging.getLogger(__name__)


def _unused_parameters_expected(init: Callable) -> Callable:
    """Layer drop on several ranks under `pytorch_ddp` switches `--find-unused-parameters` on: without it
    the second update ends in PyTorch's traceback."""

    @wraps(init)
    def wrapped(self: Any, cfg: Any, task: Any, model: Any, *args: Any, **kwargs: Any) -> None:
        distributed = cfg.distributed_training
        if (
            distributed.distributed_world_size > 1
            and distributed.ddp_backend in ("c10d", "pytorch_ddp")
            and not distributed.find_unused_parameters
            and drops_layers(model)
        ):
            distributed.find_unused_parameters = True
            if distributed.distributed_rank == 0:
                logger.info("layers are dropped: --find-unused-parameters is switched on")
        init(self, cfg, task, model, *args, **kwargs)

    return wrapped


def drops_layers(model: nn.Module) -> bool:
    """Whether training drops layers of a model, ours or fairseq's."""
    from fairseq.modules import LayerDropModuleList

    from admin_nmt.modules.score_chain import ScoreChain

    kinds = (LayerDropModuleList, ScoreChain)
    return any(isinstance(module, kinds) and module.p > 0 for module in model.modules())


PATCHES = (
    Patch("fairseq.trainer:Trainer", "__init__", _unused_parameters_expected, Scope.FAILURES),
)
