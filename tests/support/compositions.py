"""fairseq's configuration, composed by Hydra once for each choice of components.

Composing takes half a second, nearly all of `convert_namespace_to_omegaconf`, for which tests wait
hundreds of times.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser


def remembering(compose: Callable[..., Any]) -> Callable[..., Any]:
    """`compose` of Hydra, which is asked once for each choice of components.

    A later configuration is a copy of the first with the values that differ set by Hydra's own
    functions, which raise for wrong ones what they raise in `compose`.
    """
    composed: dict[tuple[str, ...], tuple[Sequence[str], Any]] = {}
    parser = OverridesParser.create()

    def composing(name: str, overrides: Sequence[str], **options: Any) -> Any:
        kind = (name, str(options), *map(_kind, overrides))
        if kind not in composed:
            composed[kind] = list(overrides), compose(name, overrides=overrides, **options)
        known, first = composed[kind]
        cfg = copy.deepcopy(first)
        new = [value for value, old in zip(overrides, known, strict=True) if value != old]
        ConfigLoaderImpl._apply_overrides_to_config(parser.parse_overrides(new), cfg)
        return cfg

    return composing


def _kind(override: str) -> str:
    """What of `KEY=VALUE` Hydra composes by: `task=translation`, which chooses a component, as it
    is, and so a mapping, into which another would be merged; else the key."""
    key, _, value = override.partition("=")
    return key if "." in key and not value.startswith("{") else override
