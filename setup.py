"""What pyproject.toml, which has everything else, cannot say about the packaging of admin_nmt.

Beside the package, one `.pth` file goes to site-packages: Python runs its single line at every
start, which installs the lazy import hook of `admin_nmt_autoload` (see that module). It is written
into wheels (`build_py`) and into editable wheels (`editable_wheel`), because setuptools knows no
declarative way to install a file beside the packages.
"""

from pathlib import Path
from warnings import catch_warnings, simplefilter

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

PTH_NAME = "admin_nmt_autoload.pth"
# Quiet if the package was removed but this file stayed behind. `importlib.util.find_spec` would say
# the same but costs every Python start two milliseconds.
PTH_LINE = (
    "import sys; exec('try: import admin_nmt_autoload as _admin_nmt\\n"
    "except ImportError: pass\\nelse: _admin_nmt.install()')\n"
)


class BuildWithPth(build_py):
    """Put the .pth file into regular wheels."""

    def run(self):
        super().run()
        if not self.editable_mode:
            Path(self.build_lib, PTH_NAME).write_text(PTH_LINE, encoding="ascii")

    def get_outputs(self, include_bytecode=True):
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib, PTH_NAME))]


class EditableWheelWithPth(editable_wheel):
    """Put the .pth file into editable wheels."""

    def _select_strategy(self, *args, **kwargs):
        return _WithPth(super()._select_strategy(*args, **kwargs))


class _WithPth:
    """An editable strategy of setuptools that also writes our .pth file."""

    def __init__(self, strategy):
        self.strategy = strategy

    def __enter__(self):
        self.strategy.__enter__()
        return self

    def __exit__(self, *exc_info):
        with catch_warnings():
            simplefilter("ignore")  # that the folder must stay, which "editable" says
            return self.strategy.__exit__(*exc_info)

    def __call__(self, wheel, files, mapping):
        self.strategy(wheel, files, mapping)
        wheel.writestr(PTH_NAME, PTH_LINE)


setup(
    # Two folders hold data only, and one of them, the recipes, lies at the top of the repository,
    # where people look for it; no declarative way to name packages joins a search with more folders.
    packages=[
        *find_packages(include=["admin_nmt", "admin_nmt.*"]),
        "admin_nmt.data.corpora",
        "admin_nmt.configs",
    ],
    package_dir={"admin_nmt.configs": "configs"},
    cmdclass={"build_py": BuildWithPth, "editable_wheel": EditableWheelWithPth},
)
