"""Imports point one way, those inside functions too; read from the source."""

import ast
from pathlib import Path

import docs_pictures

PACKAGE = Path(__file__).parents[1] / "admin_nmt"

#: Room -> rooms that it may import, itself and `BASE` always. A module beside the rooms is a room.
ALLOWED: dict[str, set[str]] = {
    "ops": set(),
    "data": set(),
    "checkpoints": {"data"},
    "modules": {"ops"},
    "optim": set(),
    "initialization": {"modules"},
    "criterions": {"checkpoints", "ops"},
    "models": {"checkpoints", "initialization", "modules", "ops"},
    "search": set(),
    "evaluation": {"checkpoints", "data", "search"},
    "host": {"checkpoints", "data", "initialization", "models", "modules"},
    "registration": {"criterions", "host", "models", "optim"},
    "analysis": {"evaluation", "initialization", "models", "modules"},
    "report": {"analysis", "checkpoints", "evaluation", "models", "modules"},
    "export": {"checkpoints", "data", "initialization", "models", "modules", "search"},
    "distillation": {"checkpoints", "data", "export"},
    "pruning": {"checkpoints", "evaluation", "models", "modules"},
    "serve": {"export"},
    "interop": {"checkpoints", "initialization", "models", "modules"},
}
#: What everything may import.
BASE = {"errors", "files", "json_files", "progress", "installed"}
#: The command line imports all and is imported by nothing.
TOP = "cli"


def imports(path: Path) -> set[str]:
    """Modules of admin_nmt that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"relative import in {path}"
            found.add(str(node.module))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "admin_nmt"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


GRAPH = {module_name(path): imports(path) for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """`models` of `admin_nmt.models.config`; empty for the package itself."""
    return module.partition("admin_nmt")[2].lstrip(".").split(".")[0]


def test_rooms_import_only_what_lies_below() -> None:
    for module, imported in GRAPH.items():
        if room(module) in ("", TOP):
            continue
        allowed = (set() if room(module) in BASE else ALLOWED[room(module)]) | BASE
        used = {room(name) for name in imported if f"admin_nmt.{room(name)}" in ROOMS}
        assert used <= allowed | {room(module)}, f"{module} imports {used - allowed}"


ROOMS = {f"admin_nmt.{room(module)}" for module in GRAPH if room(module)}


def test_the_table_of_rooms_has_no_circle_and_no_empty_permission() -> None:
    used: dict[str, set[str]] = {name: set() for name in ALLOWED}
    for module, imported in GRAPH.items():
        if room(module) in used:
            used[room(module)] |= {room(name) for name in imported} & ALLOWED.keys()
    done: set[str] = set()
    for name, allowed in ALLOWED.items():  # in an order in which each stands above those it uses
        assert allowed <= done, f"{name} may import {allowed - done}, which stands above it"
        assert allowed <= used[name], f"{name} imports nothing of {allowed - used[name]}"
        done.add(name)


def test_contributing_shows_the_table() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [
        line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `admin_nmt/")
    ]
    written = {row[0].strip().strip("`").removeprefix("admin_nmt/"): row[2] for row in rows}
    for name in ALLOWED.keys() - {"registration"}:
        below = {part.strip(" `") for part in written[name].split(",")} - {"", "torch"}
        assert below == ALLOWED[name], f"CONTRIBUTING.md, row {name}: {ALLOWED[name]}"


def test_the_picture_of_the_house_shows_the_table() -> None:
    assert docs_pictures.rooms().keys() - {"cli"} == ALLOWED.keys() - {"registration"}
    picture = (docs_pictures.FOLDER / "house.svg").read_text(encoding="utf-8")
    assert docs_pictures.house().svg() == picture, "run python scripts/docs_pictures.py"


def test_nothing_imports_the_command_line() -> None:
    for module, imported in GRAPH.items():
        assert room(module) == TOP or TOP not in map(room, imported), module


def test_modules_have_no_import_cycles() -> None:
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module in done or module not in GRAPH:
            return
        for other in sorted(GRAPH[module] - {module}):
            if other != "admin_nmt":  # the package itself imports registration, by design
                visit(other, (*trail, module))
        done.add(module)

    for module in sorted(GRAPH):
        visit(module, ())


def test_no_test_imports_another() -> None:
    """What several tests need is a fixture, or lies in `tests/support` or `tests/reference`."""
    tests = Path(__file__).parent
    for path in tests.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                last = str(node.module).split(".")[-1]
                stray = last.startswith("test_") or last == "conftest"
                assert not stray, f"{path.relative_to(tests)}: {node.module}"
