"""The Python blocks of the pages on Python, export and Hugging Face, and the latter's commands."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.cli.main import main
from tests.support.pages import REPOSITORY, commands


def page(name: str) -> str:
    return (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8")


def run_blocks(name: str) -> dict[str, Any]:
    """Run the Python blocks of a page in their order; the names that they leave behind."""
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page(name), re.S):
        exec(compile(block, name, "exec"), names)
    return names


@pytest.fixture
def folder(
    word_model: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The current folder, with what the pages call `checkpoints` and `DATA`."""
    monkeypatch.chdir(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    for name in ("average", "checkpoint_best", "checkpoint8", "checkpoint9", "checkpoint10"):
        shutil.copy(word_model, checkpoints / f"{name}.pt")
    (tmp_path / "DATA").symlink_to(prepared / "data-bin")
    (tmp_path / "text.de").write_text("Hund läuft.\n", encoding="utf-8")
    return tmp_path


def test_python(folder: Path, exported: Path) -> None:
    (folder / "exported").symlink_to(exported)
    (folder / "NEW-DATA").mkdir()
    for language in ("de", "en"):
        shutil.copy(folder / "DATA" / f"dict.{language}.txt", folder / "NEW-DATA")
    names = run_blocks("python-api")
    assert names["translator"].translate(["Hund läuft."]) == ["dog runs."]
    assert names["best"].languages == ("de", "en")
    assert names["plain"].architecture == "transformer"
    assert (folder / "plain.pt").exists()
    assert {change.dropped for change in names["changes"]} == {0}


def test_export(folder: Path, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "exported").symlink_to(exported)
    run_blocks("export")
    assert capsys.readouterr().out == "dog runs.\n"


def test_hugging_face(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    install, export = commands(page("huggingface"))
    assert install.startswith("pip install 'transformers")
    assert main(export.split()[1:]) == 0
    capsys.readouterr()
    names = run_blocks("huggingface")
    assert names["model"].config.model_type == "fsmt"
    assert re.fullmatch(r"\['.+'\]\n", capsys.readouterr().out)
