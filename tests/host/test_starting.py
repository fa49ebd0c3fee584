"""What fairseq imports in every program for two modules is imported when they use it."""

import subprocess
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.host import starting

SCRIPT = """
import sys
import fairseq
assert "sklearn" not in sys.modules and "scipy.stats" not in sys.modules, "imported"
import fairseq.criterions.sentence_prediction as criterion
import fairseq.tasks.audio_classification as task
from sklearn.metrics import f1_score
assert f1_score is not criterion.f1_score, "everybody else gets the library itself"
truth, guess = [0, 1, 1, 0], [0, 1, 0, 0]
assert criterion.f1_score(truth, guess) == f1_score(truth, guess)
assert criterion.pearsonr([1, 2, 3], [1, 2, 3]).statistic > 0.99
assert len(task.sklearn_metrics.roc_curve(truth, [0.1, 0.9, 0.4, 0.2])) == 3
"""


def test_libraries_are_imported_when_they_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: Any) -> Any:
    """Runs a module with the stand-ins; the libraries count as not imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("sklearn", "scipy")]:
        monkeypatch.delitem(sys.modules, name)

    def run(text: str) -> Any:
        (tmp_path / "asking.py").write_text(text)
        monkeypatch.setattr(starting, "ASKING", ("asking",))
        spec = starting._Finder().find_spec("asking", [str(tmp_path)])
        assert isinstance(spec, ModuleSpec)
        module = module_from_spec(spec)
        assert spec.loader is not None
        spec.loader.exec_module(module)
        return module

    return run


def test_stand_ins_do_not_stay(asking: Any) -> None:
    module = asking("from sklearn.metrics import f1_score\nfrom scipy.stats import pearsonr\n")
    assert callable(module.f1_score)
    assert not {"sklearn", "sklearn.metrics", "scipy", "scipy.stats"} & set(sys.modules)
    assert not isinstance(module.__spec__.loader, starting._WithStandIn)


def test_they_do_not_stay_after_an_error_either(asking: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        asking("import sklearn.metrics\n1 / 0\n")
    assert "sklearn" not in sys.modules


def test_a_library_that_is_there_is_left_alone(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", starting.ModuleType("sklearn"))
    assert "sklearn" not in starting.stand_ins()


def test_other_modules_are_found_as_before(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("")
    assert starting._Finder().find_spec("plain", [str(tmp_path)]) is None
    assert PathFinder.find_spec("plain", [str(tmp_path)]) is not None


@pytest.mark.parametrize(("without", "added"), [("", 1), ("quiet, starting", 0)])
def test_it_can_be_left_out(monkeypatch: Any, without: str, added: int) -> None:
    monkeypatch.setenv("ADMIN_NMT_WITHOUT", without)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len(sys.meta_path)
    starting.install_early()
    assert len(sys.meta_path) == before + added
