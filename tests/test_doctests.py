"""Examples in docstrings are run, and every package of pure functions has some."""

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "admin_nmt"
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed


@pytest.mark.parametrize("package", ("ops", "initialization", "modules", "pruning"))
def test_packages_of_pure_functions_have_examples(package: str) -> None:
    assert any(name.startswith(f"admin_nmt.{package}.") for name in MODULES)
