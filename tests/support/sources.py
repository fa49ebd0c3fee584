"""What stands in the Python files of the repository."""

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def nodes(*folders: str) -> Iterator[tuple[str, ast.AST]]:
    """Path within the repository and node, of the syntax trees of all Python files below `folders`."""
    for folder in folders:
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield str(path.relative_to(REPOSITORY)), node
