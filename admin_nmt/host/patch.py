"""A change to a program that is not ours: one attribute replaced, or one thing registered.

Each file of this folder lists its changes as `PATCHES`; `admin_nmt.host.patches` puts them together.
"""

import inspect
import os
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

#: Environment variable with the topics to leave out, such as `batches,errors`.
WITHOUT = "ADMIN_NMT_WITHOUT"


def topics_left_out() -> set[str]:
    """The topics that the environment variable `WITHOUT` names, known or not."""
    topics = (topic.strip() for topic in os.environ.get(WITHOUT, "").split(","))
    return {topic for topic in topics if topic}


class Scope(Enum):
    """Whom a change concerns."""

    OURS = "trainings of `admin_transformer` or with our criterions only"
    FAILURES = "what fails without it, whatever the model"
    ERRORS = "text and exit code of failures"
    ALL = "every model"


class Change(ABC):
    """A row of the table."""

    @property
    @abstractmethod
    def function(self) -> Callable[..., Any]:
        """What makes the change. The first paragraph of its docstring says what changes and why; the
        name of its module is the topic under which the change can be left out."""

    @property
    def topic(self) -> str:
        """The file of this folder that it belongs to."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def why(self) -> str:
        """The first paragraph of the docstring of `function`, in one line."""
        return " ".join((inspect.getdoc(self.function) or "").split("\n\n")[0].split())

    def is_wanted(self) -> bool:
        """Asked when everything is applied; False leaves it out."""
        return True

    @abstractmethod
    def apply(self) -> Callable[[], None]:
        """Make the change; returns what takes it back."""


@dataclass(frozen=True)
class Patch(Change):
    """An attribute replaced by a decorated form of itself.

    Attributes:
        owner: module, or module and class as `module:Class`.
        name: attribute of it.
        decorate: original -> replacement; see `Change.function`.
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
    def function(self) -> Callable[..., Any]:
        """`decorate`."""
        return self.decorate

    def is_wanted(self) -> bool:
        """As `applies` says."""
        return self.applies()

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
class Addition(Change):
    """Something registered with a library.

    Attributes:
        what: it, as people write it.
        add: registers it; returns what takes it back. See `Change.function`.
        scope: whom it concerns.
    """

    what: str
    add: Callable[[], Callable[[], None]]
    scope: Scope

    @property
    def function(self) -> Callable[..., Any]:
        """`add`."""
        return self.add

    def apply(self) -> Callable[[], None]:
        """Register it; returns what takes it back."""
        return self.add()
