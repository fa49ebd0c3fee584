"""Settings in a fairseq checkpoint, whichever of fairseq's two ways they are kept in."""

from typing import Any


def setting(state: dict[str, Any], group: str, name: str) -> Any:
    """One setting of the training run, or None: from `cfg` (`cfg.model.arch`), else from `args`."""
    config = state.get("cfg")
    if config is not None:
        return _get(_get(config, group), name)
    return _get(state.get("args"), name)


def _get(container: Any, name: str) -> Any:
    if isinstance(container, dict):
        return container.get(name)
    return getattr(container, name, None)


def architecture(state: dict[str, Any]) -> str | None:
    """The name given to `--arch`, None if the checkpoint does not say."""
    return setting(state, "model", "arch") or setting(state, "model", "_name")
