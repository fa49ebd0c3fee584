"""fairseq finds us without --user-dir, and processes that never use fairseq do not notice us."""

import os
import subprocess
import sys


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | env,
        cwd="/",
        timeout=600,
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
