"""The train-and-evaluate scripts: what they call, and one of them from data to scores."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.programs import BIN

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
SHELL_SCRIPTS = sorted(p for p in SCRIPTS.rglob("*") if p.suffix in (".sh", ".sbatch"))
PIPELINES = ["iwslt14-de-en", "wmt14-en-de", "wmt14-en-fr", "multi30k"]


def run(script: str, *options: object, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPTS / script, *map(str, options)],
        capture_output=True, text=True, timeout=100, cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{path}:{os.environ['PATH']}"},
    )  # fmt: skip


@pytest.mark.parametrize("path", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_scripts_stop_at_errors_and_have_no_syntax_error(path: Path) -> None:
    assert re.search(r"^set -euo pipefail$", path.read_text(), re.M)
    assert subprocess.run(["bash", "-n", path], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline_prepares_trains_averages_and_scores(name: str, tmp_path: Path) -> None:
    for program in ("admin-nmt", "torchrun"):
        stub = tmp_path / program
        stub.write_text(f'#!/bin/sh\necho {program} "$@" >> {tmp_path}/calls\n')
        stub.chmod(0o755)
    result = run(
        f"{name}.sh", "--archives", "tars", "--procs", "4", "--", "x=1", path=tmp_path, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    prepared, trained, averaged, evaluated = (tmp_path / "calls").read_text().splitlines()
    out = tmp_path / "outputs" / name
    assert prepared.startswith(f"admin-nmt prepare {name} --output {out}/prepared --archives tars")
    assert "--nproc-per-node 4" in trained and trained.endswith(" x=1")
    assert f"{out}/prepared/data-bin" in trained and f"{out}/checkpoints" in trained
    assert f"--inputs {out}/checkpoints" in averaged
    assert averaged.endswith(f"--output {out}/averaged.pt")
    assert evaluated.startswith(
        f"admin-nmt evaluate {out}/prepared/data-bin --path {out}/averaged.pt"
    )
    for recipe in re.findall(r"--config-name (\S+)", trained):
        assert (ROOT / "configs" / f"{recipe}.yaml").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus", "2"], "unknown option --gpus"),
        (["--output"], "--output needs a value"),
        (["--data", "nowhere"], "--data nowhere is not a folder"),
    ],
)
def test_wrong_options_end_in_one_line(options: list[str], message: str, tmp_path: Path) -> None:
    result = run("multi30k.sh", *options, path=BIN, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_multi30k_pipeline_ends_in_scores(data_bin: Path, tmp_path: Path) -> None:
    result = run(
        "multi30k.sh", "--output", "out", "--data", data_bin, "--cpu", "--procs", "1", "--",
        "--encoder-layers", "1", "--decoder-layers", "1", "--encoder-embed-dim", "16",
        "--encoder-ffn-embed-dim", "16", "--max-tokens", "300", "--max-update", "6",
        "--save-interval-updates", "1", path=BIN, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    assert "BLEU" in result.stdout and "version:2." in result.stdout
    assert json.loads((tmp_path / "out" / "scores" / "scores.json").read_text())
    assert (tmp_path / "out" / "averaged.pt").is_file()
