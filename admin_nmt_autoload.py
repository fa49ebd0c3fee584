"""Make `fairseq-train --arch admin_transformer ...` work with no `--user-dir`, in any directory.

fairseq has no plug-in discovery: it knows only what some imported module registered. This module
closes the gap. `admin_nmt_autoload.pth` in site-packages calls `install()` at every start of
Python; that puts one finder on `sys.meta_path`, which does nothing until somebody imports
`fairseq`, and right after fairseq has been imported imports `admin_nmt.registration`.

- Cost in a process that never imports fairseq: this file (well under a millisecond); neither
  fairseq nor `admin_nmt` is imported.
- Without fairseq nothing happens. `ADMIN_NMT_AUTOLOAD=0` in the environment turns it off.
- If our registration fails, fairseq goes on without us and one line on stderr says so: a broken
  plug-in must not take down the programs of people who do not use it.

It is a top-level module, not a part of `admin_nmt`, because importing any part of the package would
first import the package, and importing the package registers everything. Keep its imports to
modules that Python has loaded anyway.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # type checkers take it for true; importing typing would cost milliseconds
if TYPE_CHECKING:
    from typing import Any

#: `admin-nmt` sets this: then `import admin_nmt` alone registers nothing, so that subcommands that
#: need no model (and `--help`) start without importing torch; fairseq's import still triggers it.
defer_registration = False


class _AfterFairseq:
    """A meta path finder that lets others find fairseq and acts when its import has finished."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name != "fairseq":
            return None
        uninstall()  # or the search below would end here again
        try:
            from importlib.util import find_spec

            spec = find_spec("fairseq")
        finally:
            # Keep waiting: libraries ask for a spec only to know whether fairseq is installed.
            wait()
        if spec is None or spec.loader is None:
            return None
        spec.loader = _RegisterAfter(spec.loader)  # type: ignore[assignment]
        return spec


class _RegisterAfter:
    """Loader of fairseq that registers admin_nmt once fairseq's own code has run."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        # The module must not see this wrapper: importlib.resources and pickling ask the loader.
        module.__loader__ = module.__spec__.loader = self._loader
        _prepare()
        self._loader.exec_module(module)
        uninstall()
        _register()


def _prepare() -> None:
    """Leave out fairseq's own warnings in its programs, and what it imports in vain; must not itself
    register anything."""
    global defer_registration
    before, defer_registration = defer_registration, True
    try:
        from admin_nmt.host import quiet, starting

        quiet.install_early()
        starting.install_early()
    except Exception as error:  # a warning too many must not take down anybody's program
        if os.environ.get("ADMIN_NMT_AUTOLOAD") == "debug":
            raise error
    finally:
        defer_registration = before


def _register() -> None:
    """Import `admin_nmt.registration`; on failure warn in one line and go on."""
    try:
        import admin_nmt.registration  # noqa: F401
    except Exception as error:
        if os.environ.get("ADMIN_NMT_AUTOLOAD") == "debug":
            raise
        sys.stderr.write(
            f"warning: admin_nmt could not register with fairseq ({type(error).__name__}: {error}); "
            "its architectures are missing. ADMIN_NMT_AUTOLOAD=debug shows the traceback.\n"
        )


def install() -> None:
    """Start waiting for fairseq, unless `ADMIN_NMT_AUTOLOAD=0` or fairseq is there already."""
    if os.environ.get("ADMIN_NMT_AUTOLOAD") != "0":
        wait()


def wait() -> None:
    """Start waiting for fairseq, unless it is there already."""
    if "fairseq" not in sys.modules and _AfterFairseq not in sys.meta_path:
        sys.meta_path.insert(0, _AfterFairseq)


def uninstall() -> None:
    """Stop waiting for fairseq."""
    if _AfterFairseq in sys.meta_path:
        sys.meta_path.remove(_AfterFairseq)


def main() -> None:
    """Entry point of `admin-nmt`: the command line without importing torch before it is needed."""
    global defer_registration
    defer_registration = True
    wait()  # our own command works with ADMIN_NMT_AUTOLOAD=0, too
    from admin_nmt.cli.main import main as cli_main

    sys.exit(cli_main())
