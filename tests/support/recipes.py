"""Recipes as Hydra composes them."""

from typing import Any


def compose(name: str, *overrides: str) -> Any:
    """What `fairseq-hydra-train --config-name NAME OVERRIDES` hands to training."""
    return resolve(compose_unresolved(name, *overrides))


def compose_unresolved(name: str, *overrides: str) -> Any:
    """The same with what depends on other settings still open."""
    from fairseq.dataclass.initialize import add_defaults, hydra_init
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module

    hydra_init(name)
    with initialize_config_module("fairseq.config"):
        cfg = hydra_compose(name, overrides=list(overrides))
    add_defaults(cfg)
    return cfg


def resolve(cfg: Any) -> Any:
    """A copy without open settings."""
    from omegaconf import OmegaConf

    resolved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    OmegaConf.set_struct(resolved, True)
    return resolved
