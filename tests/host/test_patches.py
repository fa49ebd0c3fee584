"""The table of our changes is complete, can be taken back, and stands in the documentation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from admin_nmt.errors import UsageError
from admin_nmt.host import patches
from admin_nmt.host.__main__ import page
from admin_nmt.host.patch import WITHOUT, Patch

REPOSITORY = Path(__file__).parents[2]
#: Compares all attributes of fairseq's modules and classes before, with, and without our changes.
COMPARISON = """
import inspect, pkgutil, sys
from fairseq import checkpoint_utils, options, trainer
from fairseq.dataclass import initialize
from fairseq_cli import generate, train
from admin_nmt_autoload import uninstall

def attributes():
    found = {("sys", "excepthook"): sys.excepthook}
    for module in [m for n, m in sys.modules.items() if n.split(".")[0] in ("fairseq", "fairseq_cli")]:
        name = module.__name__  # old names of modules are aliases
        for key, value in list(vars(module).items()):
            found[name, key] = value
            if inspect.isclass(value) and value.__module__ == name:
                found |= {(f"{name}:{value.__qualname__}", k): v for k, v in vars(value).items()}
    return found

def changed(now):
    # Modules imported and caches filled meanwhile are not changes.
    function = lambda value: callable(value) or isinstance(value, (classmethod, staticmethod))
    owners = {owner for owner, _ in before if ":" in owner}
    return {
        key for key in before.keys() | {key for key in now if key[0] in owners}
        if now.get(key) is not before.get(key) and function(now.get(key, before.get(key)))
    }

def canonical(key):
    owner = pkgutil.resolve_name(key[0])
    return f"{owner.__module__}:{owner.__qualname__}" if inspect.isclass(owner) else key[0], key[1]

sys.argv[0] = "fairseq-train"
before = attributes()
import admin_nmt.registration
from admin_nmt.host import patches
table = {canonical((c.owner, c.name)) for c in patches.TABLE if isinstance(c, patches.Patch) and c.is_wanted()}
found = changed(attributes())
assert found == table, (sorted(found - table), sorted(table - found))
patches.apply()
assert changed(attributes()) == table
patches.restore()
assert not changed(attributes()), changed(attributes())
"""


def test_table_is_what_is_replaced_and_can_be_taken_back() -> None:
    result = subprocess.run(
        [sys.executable, "-c", COMPARISON], capture_output=True, text=True, timeout=600, cwd="/",
        env=os.environ | {"ADMIN_NMT_AUTOLOAD": "0"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]


def test_everything_is_applied_once() -> None:
    from fairseq.trainer import Trainer

    import admin_nmt  # noqa: F401

    before = dict(vars(Trainer))
    patches.apply()
    assert dict(vars(Trainer)) == before


@pytest.mark.parametrize("change", patches.TABLE, ids=lambda change: change.what)
def test_every_change_says_why(change: Patch) -> None:
    assert len(change.why) > 30, "the docstring of its function says what changes and why"


def test_topics_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WITHOUT, "batches, errors,")
    assert patches._wanted_without() == {"batches", "errors"}
    for wrong in ("profiling", "batch"):
        monkeypatch.setenv(WITHOUT, f"batches,{wrong}")
        with pytest.raises(UsageError, match=f"'{wrong}' cannot be left out; there are .*batches"):
            patches._wanted_without()


def test_documentation_has_the_table() -> None:
    written = (REPOSITORY / "docs" / "fairseq-changes.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m admin_nmt.host > docs/fairseq-changes.md"
