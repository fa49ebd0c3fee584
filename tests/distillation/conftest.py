"""An interrupt while a training set is translated."""

from collections.abc import Callable
from typing import Any

import pytest

from admin_nmt.distillation import translating


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """`interrupt(n)`: the n-th part to be translated is interrupted, the others are not; returns a list
    to which every part adds its number of lines."""

    def at(number: int) -> list[int]:
        translate: Callable[..., Any] = translating._translate
        calls: list[int] = []

        def interrupted(backend: Any, lines: Any, *rest: Any) -> Any:
            calls.append(len(lines))
            if len(calls) == number:
                raise KeyboardInterrupt
            return translate(backend, lines, *rest)

        monkeypatch.setattr(translating, "_translate", interrupted)
        return calls

    return at
