"""Imports point one way, those inside functions too; read from the source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import docs_pictures
from admin_nmt.cli.main import SUBCOMMANDS

PACKAGE = Path(__file__).parents[1] / "admin_nmt"

#: Package -> packages that it may import, itself and `BASE` always. A module beside them counts as one.
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
    "synthetic_data": {"checkpoints", "data", "export"},
    "pruning": {"checkpoints", "evaluation", "models", "modules"},
    "serve": {"export"},
    "interop": {"checkpoints", "initialization", "models", "modules"},
}
#: What everything may import.
BASE = {
    "errors",
    "files",
    "installed",
    "json_files",
    "lazy",
    "option_names",
    "outputs",
    "progress",
    "programs",
}
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


def package(module: str) -> str:
    """`models` of `admin_nmt.models.config`; empty for the package itself."""
    return module.partition("admin_nmt")[2].lstrip(".").split(".")[0]


def test_packages_import_only_what_lies_below() -> None:
    for module, imported in GRAPH.items():
        if package(module) in ("", TOP):
            continue
        allowed = (set() if package(module) in BASE else ALLOWED[package(module)]) | BASE
        used = {package(name) for name in imported if f"admin_nmt.{package(name)}" in PACKAGES}
        assert used <= allowed | {package(module)}, f"{module} imports {used - allowed}"


PACKAGES = {f"admin_nmt.{package(module)}" for module in GRAPH if package(module)}


def test_the_table_of_packages_has_no_circle_and_no_empty_permission() -> None:
    used: dict[str, set[str]] = {name: set() for name in ALLOWED}
    for module, imported in GRAPH.items():
        if package(module) in used:
            used[package(module)] |= {package(name) for name in imported} & ALLOWED.keys()
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


def test_the_picture_of_the_packages_shows_the_table() -> None:
    assert docs_pictures.packages().keys() - {"cli"} == ALLOWED.keys() - {"registration"}
    picture = (docs_pictures.FOLDER / "packages.svg").read_text(encoding="utf-8")
    assert docs_pictures.package_diagram().svg() == picture, "run python scripts/docs_pictures.py"


def test_nothing_imports_the_command_line() -> None:
    for module, imported in GRAPH.items():
        assert package(module) == TOP or TOP not in map(package, imported), module


def imported_by(node: ast.AST) -> set[str]:
    """Names of a statement that imports, of any package."""
    if isinstance(node, ast.ImportFrom):
        return {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()


@cache
def imported_at_once(module: str) -> set[str]:
    """What importing a module of ours imports: what stands outside functions, and the packages of it."""
    path = PACKAGE.parent / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.exists():  # a name in a module
        return set()
    found: set[str] = set()
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        checked = isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)
        if not checked and not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found |= {name for node in ast.walk(statement) for name in imported_by(node)}
    return found


@cache
def starts_fairseq(name: str) -> bool:
    """Whether importing this name imports fairseq. The package itself does not: `admin-nmt` defers it."""
    seen, ahead = {"admin_nmt"}, [name]
    while ahead:
        parts = ahead.pop().split(".")
        if parts[0] in ("fairseq", "fairseq_cli"):
            return True
        modules = {".".join(parts[:end]) for end in range(1, len(parts) + 1)} - seen
        if parts[0] == "admin_nmt":
            ahead += [other for module in modules for other in imported_at_once(module)]
        seen |= modules
    return False


def functions_of(module: str) -> dict[str, ast.FunctionDef]:
    """Functions of a module of the command line, and those that it imports from another."""
    tree = ast.parse((PACKAGE.parent / f"{module.replace('.', '/')}.py").read_text("utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("admin_nmt.cli."):
            theirs = functions_of(str(node.module))
            found |= {a.name: theirs[a.name] for a in node.names if a.name in theirs}
    return found


def imports_in_order(functions: dict[str, ast.FunctionDef], name: str) -> Iterator[set[str]]:
    """What a function imports and the functions that it calls, in the order of the source."""
    nodes = [node for node in ast.walk(functions[name]) if hasattr(node, "lineno")]
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        if imported_by(node):
            yield imported_by(node)
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) and called.id in functions.keys() - {name}:
            yield from imports_in_order(functions, called.id)


@pytest.mark.parametrize("name", SUBCOMMANDS.values())
def test_subcommands_register_before_anything_imports_fairseq(name: str) -> None:
    """Registration that starts halfway into one of our modules meets it half imported."""
    module = f"admin_nmt.cli.{name}"
    assert not starts_fairseq(module)  # `admin-nmt --help` shall be quick
    for names in imports_in_order(functions_of(module), "run"):
        if "admin_nmt.registration" in names:
            break
        assert not any(map(starts_fairseq, names)), f"{module}: {names}"


def test_what_starts_fairseq_is_known() -> None:
    assert starts_fairseq("admin_nmt.registration") and starts_fairseq("admin_nmt.models.config")
    assert not starts_fairseq("admin_nmt.errors.UserError")


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
