"""The source archive builds a wheel that holds the whole package, installs, and leaves nothing behind."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import admin_nmt

REPOSITORY = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("packaging")  # one worker builds the wheel
#: What `python -m build` does, without a network: an archive, and a wheel from what it holds.
BUILD = """
import os, sys, tarfile
from setuptools import build_meta
folder = sys.argv[1]  # which setuptools overwrites
archive = os.path.join(folder, build_meta.build_sdist(folder))
with tarfile.open(archive) as packed:
    packed.extractall(folder, filter="data")
os.chdir(archive.removesuffix(".tar.gz"))
build_meta.build_wheel(folder)
"""


def tracked(*folders: str) -> list[str]:
    """Files that git keeps; the test needs a checkout."""
    found = subprocess.run(
        ["git", "ls-files", "-z", *folders], cwd=REPOSITORY, capture_output=True, text=True
    )
    if found.returncode:
        pytest.skip("not a git checkout")
    return found.stdout.strip("\0").split("\0")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the files that git keeps: building writes beside `setup.py`."""
    folder = tmp_path_factory.mktemp("packaging")
    for name in tracked():
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder / "built")],
        cwd=folder / "source", capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-3000:]
    (path,) = (folder / "built").glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    recipes = {f"admin_nmt/{name}" for name in tracked("configs")}
    package = set(tracked("admin_nmt")) | recipes
    assert names - package == {"admin_nmt_autoload.py", "admin_nmt_autoload.pth"}
    assert package <= names


def test_its_hook_is_one_import(wheel: Path) -> None:
    """Python runs the line of a .pth file at every start."""
    assert wheel.name == f"admin_nmt-{admin_nmt.__version__}-py3-none-any.whl"
    line = zipfile.ZipFile(wheel).read("admin_nmt_autoload.pth").decode()
    assert line.startswith("import ") and line.count("\n") == 1


def test_its_metadata_name_what_it_needs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    metadata = HeaderParser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == "admin-nmt" and metadata["Version"] == admin_nmt.__version__
    needed = " ".join(metadata.get_all("Requires-Dist") or [])
    for requirement in ("fairseq", "torch", "sacrebleu", "sacremoses", "subword-nmt"):
        assert requirement in needed
    assert metadata["License-File"] == "LICENSE"


def test_installing_and_uninstalling_leave_nothing(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"

    def files() -> set[Path]:
        found = (tmp_path / "env").rglob("*")
        return {path for path in found if path.is_file() and path.suffix != ".pyc"}

    def pip(*words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(python), *words],
            check=True, capture_output=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )  # fmt: skip

    before = files()
    pip("install", "--no-deps", "--no-index", str(wheel))
    installed = {path.name for path in files() - before}
    assert {"admin-nmt", "admin_nmt_autoload.pth", "iwslt14_de_en_admin.yaml"} <= installed
    # The .pth file is read at every start and must not fail where fairseq is missing.
    started = subprocess.run(
        [python, "-c", "import admin_nmt_autoload, sys; print('torch' in sys.modules)"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (started.stdout, started.stderr) == ("False\n", "")
    pip("uninstall", "--yes", "admin-nmt")
    assert files() == before


def test_what_is_installed_fits_together() -> None:
    found = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
