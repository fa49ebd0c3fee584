"""Names of a package that are imported when they are asked for."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose modules take long to import.

    Args:
        package: its `__name__`.
        homes: public name -> module that defines it.

    >>> lazy_attributes("p", {"sqrt": "math"})("sqrt")(4.0)
    2.0
    """

    def getter(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package} has no attribute {name}")
        return getattr(importlib.import_module(homes[name]), name)

    return getter
