"""`admin-nmt doctor` says what is installed and what of it cannot work."""

from pathlib import Path

import pytest

import admin_nmt
from admin_nmt import installed
from admin_nmt.cli import doctor
from admin_nmt.cli.main import main


def test_it_prints_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    rows = dict(line.split("  ", 1) for line in printed.splitlines() if "  " in line)
    assert rows["admin_nmt"].split()[0] == admin_nmt.__version__
    assert {name: text for name, text in rows.items() if not text.strip()} == {}
    for name in ("fairseq", "torch", "device", "threads", "bfloat16", "Triton", "autoload"):
        assert name in rows
    assert printed.endswith("no known problems\n")


def test_it_names_what_cannot_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    versions = {"fairseq": "0.12.2", "ve-fairseq": "0.12.3", "torch": "2.5.1", "numpy": "2.4.6"}
    for module in (doctor, installed):
        monkeypatch.setattr(module, "installed", versions.get)
    monkeypatch.setattr(doctor, "apex", lambda: "other")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert main(["doctor"]) == 1
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: ")]
    assert len(found) == 5
    for words in ("ve-fairseq and fairseq overwrite", "Python 3.11", "torch 2.5.1 is older than 2.6",
                  "not NVIDIA's", "WEIGHTS_ONLY"):  # fmt: skip
        assert any(words in line for line in found), words
    for module in (doctor, installed):
        monkeypatch.setattr(module, "installed", lambda name: None)
    assert any("fairseq is not installed" in line for line in doctor.problems())


@pytest.mark.parametrize(("inside", "kind"), [("optimizers", "nvidia"), ("", "other")])
def test_the_two_packages_called_apex(
    inside: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apex" / inside).mkdir(parents=True)
    (tmp_path / "apex" / "__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.apex() == kind


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out == f"admin-nmt {admin_nmt.__version__}\n"
