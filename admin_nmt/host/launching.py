"""Processes that torchrun started train together, or not at all."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.errors import UsageError
from admin_nmt.host.patch import Patch, Scope


def _not_each_alone(init: Callable) -> Callable:
    """Several processes of torchrun of which each would train alone, into one folder, are refused.
    fairseq takes the number of GPUs of this machine for that of the processes, which is 1 on a machine
    with one GPU or none, and then does not look at what torchrun says."""

    @wraps(init)
    def wrapped(self: Any, cfg: Any, *args: Any, **kwargs: Any) -> None:
        ranks = int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
        if ranks > 1 and cfg.distributed_training.distributed_world_size == 1:
            raise UsageError(
                f"torchrun started {ranks} processes, and with --distributed-world-size 1 each would "
                f"train alone: give --distributed-world-size {ranks}; on CPUs start them by "
                f"scripts/train-multi-gpu.sh --cpu --procs {ranks}"
            )
        init(self, cfg, *args, **kwargs)

    return wrapped


PATCHES = (Patch("fairseq.trainer:Trainer", "__init__", _not_each_alone, Scope.ALL),)
