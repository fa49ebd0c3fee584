"""Options as users write them, and their values without fairseq's wrapping."""

from typing import Any


def flag(name: str) -> str:
    """The option of a field.

    >>> flag("init_type")
    '--init-type'
    """
    return "--" + name.replace("_", "-")


def plain_value(value: Any) -> Any:
    """The value of a choice of fairseq's, which it keeps as an enumeration in some places."""
    return value.value if hasattr(value, "value") else value
