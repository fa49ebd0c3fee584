"""What fairseq imports in every program for two modules is imported when they use it; PyTorch's compiler
when something is compiled."""

import subprocess
import sys
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.host import starting
from tests.support.training import COMMON

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

TRAINING = """
import sys, types
from fairseq_cli.train import cli_main
cli_main()
assert "torch._dynamo" not in sys.modules, "imported"
import torch
asked = []
compiler = types.ModuleType("torch._dynamo")
compiler.disable = lambda function, *_, **__: asked.append(function) or function
torch._dynamo = sys.modules["torch._dynamo"] = compiler  # as if something were compiled now
for _ in range(2):
    torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1).zero_grad()
names = {function.__name__ for function in asked}
assert {"add_param_group", "zero_grad"} <= names and len(asked) == len(names), asked
"""


def test_libraries_are_imported_when_they_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_training_imports_no_compiler_but_the_optimizers_ask_one_that_is_there(
    data_bin: Path, tmp_path: Path
) -> None:
    train = [data_bin, *COMMON, "--max-update", "2", "--save-dir", tmp_path]
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, *map(str, train)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_methods_decorated_otherwise_are_left_alone() -> None:
    def plain(self: Any) -> None: ...

    class Owner:
        step = wraps(plain)(lambda self: plain(self))

    starting.without_compiler(Owner)
    assert not hasattr(plain, starting.KEPT)


def test_optimizers_are_put_back(monkeypatch: Any) -> None:
    class Owner:
        @torch._disable_dynamo
        def step(self) -> int:
            return 3

    monkeypatch.delitem(sys.modules, starting.COMPILER, raising=False)
    restore = starting.without_compiler(Owner)
    assert Owner().step() == 3 and starting.COMPILER not in sys.modules
    restore()
    assert not hasattr(Owner.step.__wrapped__, starting.KEPT)


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
