"""Lets `fairseq-hydra-train --config-name NAME` find the recipes of `configs/`, in any folder.

Two things are registered with Hydra when fairseq is imported: the folder of the installed recipes
in Hydra's search path, and a resolver that keeps a recipe's effective batch on any number of GPUs:

    optimization:
      update_freq: ["${admin_nmt.update_freq:128,${distributed_training.distributed_world_size}}"]

says that an update sums 128 batches of `max_tokens`: 16 a GPU on 8 GPUs, 128 on one.
"""

import importlib.util
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from admin_nmt.errors import UsageError

RESOLVER = "admin_nmt.update_freq"


def recipe_folder() -> Path | None:
    """Where the YAML recipes lie, installed as `admin_nmt_configs`; None if they were left out."""
    spec = importlib.util.find_spec("admin_nmt_configs")
    locations = list(spec.submodule_search_locations or []) if spec else []
    return Path(locations[0]) if locations else None


def update_freq(batches_per_update: int, num_gpus: int) -> int:
    """Batches that one GPU accumulates so that all together sum `batches_per_update`.

    Raises:
        UsageError: the GPUs cannot share them equally.
    """
    if num_gpus < 1 or batches_per_update % num_gpus:
        raise UsageError(
            f"an update of this recipe sums {batches_per_update} batches, which "
            f"{num_gpus} GPUs cannot share equally; choose a divisor, or set "
            "optimization.update_freq yourself"
        )
    return batches_per_update // num_gpus


class AdminNmtSearchPath(SearchPathPlugin):
    """Adds the recipes at the end of Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when it starts."""
        folder = recipe_folder()
        if folder is not None:
            search_path.append("admin_nmt", f"file://{folder}")


def install() -> None:
    """Register both; calling it again changes nothing."""
    if not OmegaConf.has_resolver(RESOLVER):
        OmegaConf.register_new_resolver(RESOLVER, update_freq)
        Plugins.instance().register(AdminNmtSearchPath)
