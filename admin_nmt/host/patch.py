"""A change to a program that is not ours: one attribute replaced, or one thing registered.

Each file of this folder lists its changes as `PATCHES`; `admin_nmt.host.patches` puts them together.
"""

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Scope(Enum):
    """Whom a change concerns."""

    OURS = "trainings of `admin_transformer` or with our criterions only"
    FAILURES = "what fails without it, whatever the model"
    ERRORS = "text and exit code of failures"
    ALL = "every model"


@dataclass(frozen=True)
class Patch:
    """An attribute replaced by a decorated form of itself.

    Attributes:
        owner: module, or module and class as `module:Class`.
        name: attribute of it.
        decorate: original -> replacement. The first paragraph of its docstring says what changes and
            why; the name of its module is the topic under which the change can be left out.
        scope: whom it concerns.
        applies: asked when everything is applied; False leaves the attribute alone.
    """

    owner: str
    name: str
    decorate: Callable[[Any], Any]
    scope: Scope
    applies: Callable[[], bool] = lambda: True

    @property
    def what(self) -> str:
        """The attribute, as people write it."""
        return f"{self.owner.replace(':', '.')}.{self.name}"

    @property
    def topic(self) -> str:
        """The file of this folder that it belongs to."""
        return topic_of(self.decorate)

    @property
    def why(self) -> str:
        """The first paragraph of the docstring of `decorate`, in one line."""
        return first_paragraph(self.decorate)

    def apply(self) -> Callable[[], None]:
        """Replace the attribute; returns what puts the original back."""
        owner = pkgutil.resolve_name(self.owner)
        inherited = self.name not in vars(owner)
        original = inspect.getattr_static(owner, self.name)
        setattr(owner, self.name, self.decorate(getattr(owner, self.name)))

        def restore() -> None:
            if inherited:
                delattr(owner, self.name)
            else:
                setattr(owner, self.name, original)

        return restore


@dataclass(frozen=True)
class Addition:
    """Something registered with a library.

    Attributes:
        what: it, as people write it.
        register: makes it; returns what takes it back. Docstring and module as of `Patch.decorate`.
        scope: whom it concerns.
    """

    what: str
    register: Callable[[], Callable[[], None]]
    scope: Scope

    @property
    def topic(self) -> str:
        """The file of this folder that it belongs to."""
        return topic_of(self.register)

    @property
    def why(self) -> str:
        """The first paragraph of the docstring of `register`, in one line."""
        return first_paragraph(self.register)

    def applies(self) -> bool:
        """Always."""
        return True

    def apply(self) -> Callable[[], None]:
        """Register it; returns what takes it back."""
        return self.register()


def topic_of(function: Callable) -> str:
    """Name of the file in which a function stands."""
    return function.__module__.rpartition(".")[2]


def first_paragraph(function: Callable) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
