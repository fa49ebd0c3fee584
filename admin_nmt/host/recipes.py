"""Lets `fairseq-hydra-train --config-name NAME` find the recipes of `configs/`, in any folder.

When fairseq is imported, the folder of the installed recipes is added to Hydra's search path, and
Hydra learns three functions that keep a recipe's effective batch on any number of GPUs:

    dataset:
      max_tokens: ${admin_nmt.max_tokens:32768,4096,${distributed_training.distributed_world_size}}
    optimization:
      update_freq: ["${admin_nmt.update_freq:32768,${dataset.max_tokens},${distributed_training.distributed_world_size}}"]

say that an update sums 32768 tokens, at most 4096 of them at a time on one GPU: 16 GPUs take 2048
each, 8 take 4096 each, one takes 4096 eight times. With `dataset.max_tokens=2048` (a small GPU) it
takes 2048 sixteen times. `${admin_nmt.num_gpus:}` is the number of GPUs that will train.

Mistakes that fairseq's Hydra front passes over in silence, or meets much later, end in one line:
a recipe that does not exist, an option that does not exist, data that was not named.
"""

import argparse
import dataclasses
import difflib
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from admin_nmt.errors import UsageError
from admin_nmt.host.errors import clean_exit
from admin_nmt.host.ours import is_our_architecture
from admin_nmt.host.patch import Addition, Patch, Scope

#: Names of fairseq's Hydra front; other programs use its functions with folders of their own.
PROGRAMS = ("fairseq-hydra-train", "hydra_train.py")
#: Options of Hydra that bring other folders of recipes.
OTHER_FOLDERS = ("--config-dir", "-cd", "--config-path", "-cp", "hydra.searchpath")


def recipe_folder() -> Path | None:
    """Where the YAML recipes lie: `configs` in the installed package, or in a clone beside it."""
    package = Path(__file__).parents[1]
    if (package / "configs").is_dir():
        return package / "configs"
    clone = package.parent
    return clone / "configs" if (clone / "pyproject.toml").exists() else None


def num_gpus() -> int:
    """Processes that train together: as torchrun says, else the GPUs of this machine, else 1.

    fairseq's own default does not see torchrun's other machines.
    """
    import torch

    return int(os.environ.get("WORLD_SIZE", 0)) or max(1, torch.cuda.device_count())


def max_tokens(tokens_per_update: int, most: int, gpus: int) -> int:
    """Tokens in a batch of one GPU: its share of an update, but at most `most`."""
    return max(1, min(most, tokens_per_update // max(1, gpus)))


def update_freq(tokens_per_update: int, tokens: int, gpus: int) -> int:
    """Batches of `tokens` that each GPU sums so that all together sum `tokens_per_update`.

    Raises:
        UsageError: no whole number of batches does that.
    """
    if gpus < 1 or tokens < 1 or tokens_per_update % (tokens * gpus):
        raise UsageError(
            f"an update of this recipe sums {tokens_per_update} tokens, and {gpus} GPUs with "
            f"batches of {tokens} tokens cannot do that in whole batches; choose another "
            "dataset.max_tokens or number of GPUs, or set optimization.update_freq=[N] yourself"
        )
    return tokens_per_update // (tokens * gpus)


class AdminNmtSearchPath(SearchPathPlugin):
    """Adds the recipes at the end of Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when it starts."""
        folder = recipe_folder()
        if folder is not None:
            search_path.append("admin_nmt", f"file://{folder}")


def _register_resolvers() -> Callable[[], None]:
    """Functions for Hydra's recipes that keep an effective batch on any number of GPUs."""
    functions = {f"admin_nmt.{f.__name__}": f for f in (num_gpus, max_tokens, update_freq)}
    for name, function in functions.items():
        OmegaConf.register_new_resolver(name, function)

    def restore() -> None:
        for name in functions:
            OmegaConf.clear_resolver(name)

    return restore


def _register_search_path() -> Callable[[], None]:
    """`fairseq-hydra-train --config-name NAME` finds our recipes in any folder."""
    plugins = Plugins.instance()
    plugins.register(AdminNmtSearchPath)
    return lambda: plugins.plugin_type_to_subclass_list[SearchPathPlugin].remove(AdminNmtSearchPath)


def _with_known_name(hydra_init: Callable) -> Callable:
    """A `--config-name` that does not exist is refused; fairseq would train without the recipe."""

    @wraps(hydra_init)
    def wrapped(cfg_name: str = "config") -> None:
        ours = Path(sys.argv[0]).name in PROGRAMS
        if ours and not any(argument.startswith(OTHER_FOLDERS) for argument in sys.argv[1:]):
            check_name(cfg_name)
        hydra_init(cfg_name)

    return clean_exit(wrapped)


def _with_checks(add_defaults: Callable) -> Callable:
    """Unknown options of a recipe of our models, and missing data, end in one line.

    `add_defaults` is called when the configuration is complete.
    """

    @wraps(add_defaults)
    def wrapped(cfg: DictConfig) -> None:
        check_choices(cfg)  # before fairseq ends at their unknown keys with a traceback
        add_defaults(cfg)
        check_config(cfg)

    return clean_exit(wrapped)


def check_name(name: str) -> None:
    """Refuse a `--config-name` that neither we nor fairseq have.

    Raises:
        UsageError: with the recipes that there are.
    """
    import fairseq

    folders = [Path(str(fairseq.__file__)).parent / "config", recipe_folder()]
    name = name.removesuffix(".yaml")
    if any(folder and (folder / f"{name}.yaml").is_file() for folder in folders):
        return
    ours = sorted(path.stem for path in folders[1].glob("*.yaml")) if folders[1] else []
    raise UsageError(
        f"--config-name {name}: no such recipe; there are {', '.join(ours)} "
        "(your own: --config-dir DIR --config-name NAME)"
    )


def check_choices(cfg: DictConfig) -> None:
    """Refuse keys that the chosen task, criterion, optimizer or another registered part does not have, where
    our model is to be trained.

    Raises:
        UsageError: an unknown key.
    """
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    if not _is_of_our_model(cfg):
        return
    parts = {name: found["dataclass_registry"] for name, found in REGISTRIES.items()}
    for group, dataclasses_by_name in (parts | {"task": TASK_DATACLASS_REGISTRY}).items():
        chosen = cfg.get(group)
        if OmegaConf.is_config(chosen) and chosen.get("_name") in dataclasses_by_name:
            options = dataclasses.fields(dataclasses_by_name[chosen._name])
            _refuse_unknown(group, chosen, [option.name for option in options])


def _is_of_our_model(cfg: DictConfig) -> bool:
    """`fairseq-train` comes here too, with a namespace: its command line has been checked."""
    model = cfg.get("model")
    return OmegaConf.is_config(model) and is_our_architecture(model.get("_name"))


def check_config(cfg: DictConfig) -> None:
    """Refuse what fairseq would not understand or not notice, where our model is to be trained.

    Raises:
        UsageError: an unknown key, a batch that cannot be kept, no data.
    """
    if not _is_of_our_model(cfg):
        return
    task = cfg.get("task")
    for group, names in _schema().items():
        _refuse_unknown(group, cfg.get(group) or {}, names)
    # Training asks for the defaults a second time, when fairseq has added Hydra's logging.
    _refuse_unknown("", cfg, [*_schema(), "job_logging_cfg"])
    try:
        _ = cfg.dataset.max_tokens, list(cfg.optimization.update_freq)
    except InterpolationResolutionError as error:
        line = str(error).splitlines()[0].rpartition("while resolving interpolation: ")[2]
        raise UsageError(line) from error
    if OmegaConf.is_config(task) and "data" in task and task.get("data") is None:
        raise UsageError("task.data is missing: say where the binarised data is, task.data=DIR")
    _refuse_unknown("model", cfg.model, _model_options())


def _refuse_unknown(group: str, keys: Iterable[Any], known: Iterable[str]) -> None:
    """Hydra takes any key behind a `+`, and fairseq knows our model's options on its command line
    only, so that a misspelt one would be passed over."""
    for key in map(str, keys):
        if known and key not in (*known, "_name"):
            name = f"{group}.{key}" if group else key
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {name.removesuffix(key)}{near[0]}?" if near else ""
            raise UsageError(f"unknown option {name}{hint}")


@cache
def _schema() -> dict[str, list[str]]:
    """Groups of options, and the options in each; none where they depend on what was chosen
    (`check_choices`)."""
    from fairseq.dataclass.configs import FairseqConfig

    return {
        group.name: [option.name for option in dataclasses.fields(group.type)]
        if dataclasses.is_dataclass(group.type)
        else []
        for group in dataclasses.fields(FairseqConfig)
    }


@cache
def _model_options() -> list[str]:
    from admin_nmt.models.admin_transformer import AdminTransformerModel

    parser = argparse.ArgumentParser()
    AdminTransformerModel.add_args(parser)
    return [action.dest for action in parser._actions if action.dest != "help"]


# Hydra prints a traceback for every exception, so its two functions end the program themselves.
PATCHES = (
    Addition("OmegaConf.register_new_resolver", _register_resolvers, Scope.OURS),
    Addition("hydra.core.plugins.Plugins.register", _register_search_path, Scope.OURS),
    Patch("fairseq.dataclass.initialize", "hydra_init", _with_known_name, Scope.ERRORS),
    Patch("fairseq.dataclass.initialize", "add_defaults", _with_checks, Scope.OURS),
)
