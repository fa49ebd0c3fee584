"""Packaging of admin_nmt; the options of the tools are in pyproject.toml.

Beside the package, one `.pth` file goes to site-packages: Python runs its single line at every
start, which installs the lazy import hook of `admin_nmt_autoload` (see that module). It is written
into wheels (`build_py`) and into editable wheels (`editable_wheel`), because setuptools knows no
declarative way to install a file beside the packages.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).parent
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
        return self.strategy.__exit__(*exc_info)

    def __call__(self, wheel, files, mapping):
        self.strategy(wheel, files, mapping)
        wheel.writestr(PTH_NAME, PTH_LINE)


setup(
    name="admin-nmt",
    version="0.1.0",
    description="Deep Transformers for machine translation: ADMIN, RealFormer, R-Drop and head pruning for fairseq",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[*find_packages(include=["admin_nmt", "admin_nmt.*"]), "admin_nmt_configs"],
    package_dir={"admin_nmt_configs": "configs"},
    py_modules=["admin_nmt_autoload"],
    package_data={
        "admin_nmt": ["py.typed", "data/corpora/*.yaml"],
        "admin_nmt_configs": ["*.yaml"],
    },
    install_requires=[
        "fairseq-fixed==0.12.3.1",
        "torch>=2.6",
        "numpy>=1.26",
        "sacrebleu>=2.4",
        "sacremoses>=0.1.1",
        "subword-nmt>=0.3.8",
        "matplotlib>=3.8",
        "tqdm>=4.66",
        "pyyaml>=6",
        "tabulate>=0.9",
        "pooch[progress]>=1.8",
        "joblib>=1.3",
        "filelock>=3.12",
    ],
    extras_require={
        "export": ["ctranslate2>=4.5"],
        "huggingface": ["transformers>=5"],
        "test": [
            "ctranslate2>=4.5",
            # PyTorch for CPUs comes without it; the kernels' tests run in its interpreter.
            "triton>=3.4; sys_platform == 'linux'",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "pytest-timeout>=2.3",
            "hypothesis>=6.100",
            "ruff==0.17.5",
            "mypy==2.4.1",
            "types-PyYAML",
            "types-tabulate",
            "types-tqdm",
        ],
    },
    entry_points={"console_scripts": ["admin-nmt=admin_nmt_autoload:main"]},
    cmdclass={"build_py": BuildWithPth, "editable_wheel": EditableWheelWithPth},
)
