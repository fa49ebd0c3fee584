"""fairseq finds us without --user-dir, and processes that never use fairseq do not notice us."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import admin_nmt

REPOSITORY = Path(__file__).parents[1]


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | env,
        cwd="/",
        timeout=120,
    )


REGISTERED = (
    "from fairseq.models import ARCH_MODEL_REGISTRY as r; print('admin_transformer_wmt_en_de' in r)"
)


def test_process_without_fairseq_imports_nothing_heavy() -> None:
    result = python(
        "import sys\n"
        "assert 'admin_nmt_autoload' in sys.modules, 'the .pth file is not installed'\n"
        "print(sorted({'fairseq', 'torch', 'numpy', 'admin_nmt', 'typing'} & set(sys.modules)))\n"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_importing_fairseq_registers_our_architectures() -> None:
    result = python(REGISTERED)
    assert result.stdout.strip().endswith("True"), result.stderr


def test_switch_turns_it_off() -> None:
    result = python(REGISTERED + "\nimport sys; assert 'admin_nmt' not in sys.modules",
                    ADMIN_NMT_AUTOLOAD="0")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("False")


def test_absent_fairseq_stays_absent() -> None:
    code = (
        "import sys\n"
        "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "try: import fairseq\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "No module named 'fairseq'"
    assert result.stderr == ""


def test_looking_for_fairseq_without_importing_it_keeps_us_waiting() -> None:
    """Libraries ask `find_spec` whether fairseq is there; the import may come later."""
    result = python(
        "import sys, importlib.util as util\n"
        "import admin_nmt_autoload as ours\n"
        "assert util.find_spec('fairseq') and util.find_spec('fairseq')\n"
        "assert sys.meta_path.count(ours._AfterFairseq) == 1\n"
        "assert 'admin_nmt' not in sys.modules\n" + REGISTERED + "\n"
        "import fairseq\n"
        "assert ours._AfterFairseq not in sys.meta_path, 'still waiting'\n"
        "assert type(fairseq.__spec__.loader).__module__ != 'admin_nmt_autoload'\n"
        "assert fairseq.__loader__ is fairseq.__spec__.loader"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("True")


def test_broken_registration_warns_in_one_line_and_fairseq_works_on() -> None:
    code = (
        "import sys; sys.modules['admin_nmt.registration'] = None\n"
        "import fairseq; from fairseq.models import MODEL_REGISTRY\n"
        "print('transformer' in MODEL_REGISTRY, 'admin_transformer' in MODEL_REGISTRY)"
    )
    result = python(code)
    assert result.stdout.strip().endswith("True False"), result.stderr
    warning = [line for line in result.stderr.splitlines() if line.startswith("warning:")]
    assert len(warning) == 1 and "ADMIN_NMT_AUTOLOAD=debug" in warning[0]
    assert "Traceback" not in result.stderr


def test_wheel_carries_the_hook(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "admin_nmt_autoload.py"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("admin_nmt", "configs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(tmp_path), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("admin_nmt-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        line = archive.read("admin_nmt_autoload.pth").decode()
    assert wheel.name == f"admin_nmt-{admin_nmt.__version__}-py3-none-any.whl"
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "admin_nmt", "admin_nmt_autoload.py", "admin_nmt_autoload.pth"
    }  # fmt: skip
    assert line.startswith("import ") and line.count("\n") == 1
    assert "admin_nmt_autoload.py" in names
    assert "admin_nmt/data/corpora/wmt14-en-de.yaml" in names
    assert "admin_nmt/configs/wmt14_en_de_60l_12l.yaml" in names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
