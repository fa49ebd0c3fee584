"""Lets `fairseq-hydra-train --config-name NAME` find the recipes of `configs/`, in any folder.

Three things happen when fairseq is imported. The folder of the installed recipes joins Hydra's
search path. An unknown recipe is refused: fairseq would take it for an empty one. And two resolvers
keep a recipe's effective batch on any number of GPUs:

    optimization:
      update_freq: ["${admin_nmt.update_freq:128,${distributed_training.distributed_world_size}}"]

says that an update sums 128 batches of `max_tokens`: 16 a GPU on 8 GPUs, 128 on one. Where an
update is a single batch, `admin_nmt.max_tokens:4096,...` divides its tokens instead.
"""

import importlib.util
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from admin_nmt.errors import UsageError

RESOLVER = "admin_nmt.update_freq"
TOKENS_RESOLVER = "admin_nmt.max_tokens"
#: Options of Hydra that bring other folders of recipes.
OTHER_FOLDERS = ("--config-dir", "-cd", "--config-path", "-cp", "hydra.searchpath")


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


def max_tokens(tokens_per_update: int, num_gpus: int) -> int:
    """Tokens of one GPU's batch so that all together have at most `tokens_per_update`.

    Raises:
        UsageError: the GPUs cannot share them equally.
    """
    if num_gpus < 1 or tokens_per_update % num_gpus:
        raise UsageError(
            f"an update of this recipe has {tokens_per_update} tokens, which {num_gpus} GPUs "
            "cannot share equally; choose a divisor, or set dataset.max_tokens yourself"
        )
    return tokens_per_update // num_gpus


def check_name(name: str) -> None:
    """Refuse a recipe that is neither ours nor fairseq's, where only those can be meant.

    Raises:
        UsageError: there is no such recipe.
    """
    from fairseq import config

    folder = recipe_folder()
    if folder is None or any(option.startswith(OTHER_FOLDERS) for option in sys.argv):
        return
    file = name.removesuffix(".yaml") + ".yaml"
    if not any((place / file).is_file() for place in (folder, Path(config.__path__[0]))):
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise UsageError(
            f"--config-name {name}: no such recipe; there are {known} "
            "(your own: --config-dir DIR --config-name NAME)"
        )


def _checked_init(hydra_init: Callable[[str], None]) -> Callable[..., None]:
    @wraps(hydra_init)
    def wrapped(cfg_name: str = "config") -> None:
        check_name(cfg_name)
        hydra_init(cfg_name)

    return wrapped


class AdminNmtSearchPath(SearchPathPlugin):
    """Adds the recipes at the end of Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when it starts."""
        folder = recipe_folder()
        if folder is not None:
            search_path.append("admin_nmt", f"file://{folder}")


def install() -> None:
    """Do all three; calling it again changes nothing."""
    from fairseq.dataclass import initialize

    if not OmegaConf.has_resolver(RESOLVER):
        OmegaConf.register_new_resolver(RESOLVER, update_freq)
        OmegaConf.register_new_resolver(TOKENS_RESOLVER, max_tokens)
        initialize.hydra_init = _checked_init(initialize.hydra_init)
        Plugins.instance().register(AdminNmtSearchPath)
