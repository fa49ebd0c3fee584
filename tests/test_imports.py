"""Imports point one way; read from the source, so that nothing has to be importable."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "admin_nmt"

#: Folder -> folders of the package that it may import (itself always; top-level modules below).
ALLOWED = {
    "checkpoints": set(),
    "ops": set(),
    "modules": {"ops"},
    "initialization": {"modules", "ops", "models"},  # models only inside functions, see below
    "models": {"initialization", "modules", "ops"},
    "optim": {"ops"},
    "data": set(),
    "evaluation": {"data"},
    "analysis": {"initialization", "modules", "models", "ops", "data", "evaluation"},
    "export": {"initialization", "modules", "models", "ops", "data", "evaluation"},
    "criterions": {"ops", "modules"},
    "host": {"initialization", "modules", "models", "ops", "data", "evaluation"},
    "pruning": {"initialization", "modules", "models", "ops", "data", "evaluation", "analysis"},
}
BASE = {"errors", "files", "documents", "compat"}


def imports(path: Path, top_level_only: bool) -> set[str]:
    """Modules of admin_nmt that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"relative import in {path}")
    return {name for name in found if name.split(".")[0] == "admin_nmt"}


def folder(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_folders_import_only_what_lies_below() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        if len(parts) == 1 or parts[0] == "cli":
            continue
        allowed = ALLOWED[parts[0]] | BASE | {parts[0]}
        for name in imports(path, top_level_only=False):
            if folder(name) and folder(name) != "registration":
                assert folder(name) in allowed, f"{path} imports {name}"


def test_initialization_imports_models_only_inside_functions() -> None:
    for path in (PACKAGE / "initialization").glob("*.py"):
        for name in imports(path, top_level_only=True):
            assert folder(name) != "models", f"{path} imports {name} at the top"


def test_nothing_imports_the_command_line() -> None:
    for path in PACKAGE.rglob("*.py"):
        if "cli" in path.relative_to(PACKAGE).parts:
            continue
        assert not any(folder(name) == "cli" for name in imports(path, False)), path


def test_modules_have_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        graph[name] = imports(path, top_level_only=True)
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module in done or module not in graph:
            return
        for other in graph[module]:
            if other != "admin_nmt":  # the package itself imports registration, by design
                visit(other, (*trail, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())
