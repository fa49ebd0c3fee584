"""Recipes as Hydra composes them."""

from typing import Any


def compose(name: str, *overrides: str) -> Any:
    """What `fairseq-hydra-train --config-name NAME OVERRIDES` hands to training."""
    from fairseq.dataclass.initialize import add_defaults, hydra_init
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from omegaconf import OmegaConf

    hydra_init(name)
    with initialize_config_module("fairseq.config"):
        cfg = hydra_compose(name, overrides=list(overrides))
    add_defaults(cfg)
    resolved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    OmegaConf.set_struct(resolved, True)
    return resolved
