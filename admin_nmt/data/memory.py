"""Values that are asked for again and again, worked out once: the words of a text."""

from collections.abc import Callable

#: Entries of one table; when it is full it starts anew, so the memory of a long run stays bounded.
MAX_ENTRIES = 200_000


class Memory(dict[str, str]):
    """`function`, remembered: `memory[key]` is `function(key)`.

    As a dictionary it is looked up without a call of Python, in `map(memory.__getitem__, words)`
    too. What `function` raises is raised and not remembered.

    Args:
        function: of the key alone.
    """

    def __init__(self, function: Callable[[str], str]) -> None:
        super().__init__()
        self.function = function

    def __missing__(self, key: str) -> str:
        value = self.function(key)
        if len(self) >= MAX_ENTRIES:
            self.clear()
        self[key] = value
        return value
