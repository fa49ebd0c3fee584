"""The train-and-evaluate scripts: what they call, and one of them from data to scores."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.programs import BIN

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
SHELL_SCRIPTS = sorted(p for p in SCRIPTS.rglob("*") if p.suffix in (".sh", ".sbatch"))
PIPELINES = ["iwslt14-de-en", "wmt14-en-de", "wmt14-en-fr", "multi30k"]


def run(
    script: str, *options: object, path: Path, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPTS / script, *map(str, options)],
        capture_output=True, text=True, timeout=600, cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ADMIN_NMT_VENV": ""}
        | {"PATH": f"{path}:{os.environ['PATH']}"} | environment,
    )  # fmt: skip


@pytest.mark.parametrize("path", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_scripts_stop_at_errors_and_have_no_syntax_error(path: Path) -> None:
    assert re.search(r"^set -euo pipefail$", path.read_text(), re.M)
    assert subprocess.run(["bash", "-n", path], capture_output=True).returncode == 0


@pytest.fixture
def calls(tmp_path: Path) -> Callable[..., list[str]]:
    """Run a pipeline with programs that only write down how they were called; returns the calls."""
    for program in ("admin-nmt", "torchrun", "python"):  # an environment has a python
        stub = tmp_path / program
        stub.write_text(f'#!/bin/sh\necho {program} "$@" >> {tmp_path}/calls\n')
        stub.chmod(0o755)

    def call(name: str, *options: str, **environment: str) -> list[str]:
        (tmp_path / "calls").unlink(missing_ok=True)
        result = run(f"{name}.sh", *options, path=tmp_path, cwd=tmp_path, **environment)
        assert result.returncode == 0, result.stderr
        return (tmp_path / "calls").read_text().splitlines()

    return call


@pytest.mark.parametrize("script", ["data_prep/prepare-multi30k.sh", "scripts/multi30k.sh"])
def test_relative_environment_counts_from_the_project_as_in_install(
    script: str, tmp_path: Path
) -> None:
    program = tmp_path / "environment" / "bin" / "admin-nmt"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\nexit 1\n')
    program.chmod(0o755)
    relative = os.path.relpath(tmp_path / "environment", ROOT)
    subprocess.run(
        ["bash", ROOT / script], cwd=tmp_path, timeout=600,
        env={"PATH": "/usr/bin:/bin", "ADMIN_NMT_VENV": relative},
    )  # fmt: skip
    assert (tmp_path / "called").read_text().startswith("prepare multi30k")


@pytest.mark.parametrize("script", ["data_prep/prepare-multi30k.sh", "scripts/multi30k.sh"])
def test_one_rule_says_which_environment_scripts_use(script: str, tmp_path: Path) -> None:
    """That of ADMIN_NMT_VENV, an active one, .venv; programs outside of an environment come last."""
    folders = ("project/scripts", "project/data_prep")
    for folder in folders:
        shutil.copytree(ROOT / folder.split("/")[1], tmp_path / folder)
    own = tmp_path / "project" / ".venv"
    for place in (tmp_path / "named", tmp_path / "active", own, tmp_path / "user"):
        (place / "bin").mkdir(parents=True)
        program = place / "bin" / "admin-nmt"
        program.write_text(f"#!/bin/sh\necho {place.name} > {tmp_path}/called\nexit 1\n")
        (place / "bin" / "python").touch()
        for path in (program, place / "bin" / "python"):
            path.chmod(0o755)
    (tmp_path / "user" / "bin" / "python").unlink()

    def used(active: str, **variables: str) -> str:
        subprocess.run(
            ["bash", tmp_path / "project" / script], cwd=tmp_path, timeout=600,
            env={"PATH": f"{tmp_path / active / 'bin'}:/usr/bin:/bin"} | variables,
        )  # fmt: skip
        return (tmp_path / "called").read_text().strip()

    assert used("active", ADMIN_NMT_VENV=str(tmp_path / "named")) == "named"
    assert used("active") == "active"
    assert used("nothing") == used("project/.venv") == used("user") == ".venv"
    shutil.rmtree(own)
    assert used("user") == "user"


@pytest.mark.parametrize("python", [False, True])
def test_a_link_to_one_program_is_not_an_environment(python: bool, tmp_path: Path) -> None:
    shutil.copytree(SCRIPTS / "lib", tmp_path / "scripts" / "lib")
    own, links = tmp_path / ".venv" / "bin", tmp_path / "links"
    for folder in (own, links):
        folder.mkdir(parents=True)
    for program in ("admin-nmt", "python", "torchrun"):
        (own / program).write_text("#!/bin/sh\n")
        (own / program).chmod(0o755)
    for program in ("admin-nmt", *["python"] * python):
        (links / program).symlink_to(own / program)
    found = subprocess.run(
        ["bash", "-c", f"source {tmp_path}/scripts/lib/environment.sh; echo $bin; type -P torchrun"],
        capture_output=True, text=True, timeout=600, env={"PATH": f"{links}:/usr/bin:/bin"},
    )  # fmt: skip
    assert found.stdout.split() == [str(own), f"{own}/torchrun"]


@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline_prepares_trains_averages_and_scores(
    name: str, calls: Callable[..., list[str]], tmp_path: Path
) -> None:
    prepared, trained, averaged, evaluated = calls(
        name, "--archives", "tars", "--procs", "4", "--", "x=1"
    )
    out = tmp_path / "outputs" / name
    recipe = re.findall(r"--config-name (\S+)", trained)
    assert bool(recipe) == (name != "multi30k")
    folder = out.joinpath(*recipe)
    assert prepared.startswith(f"admin-nmt prepare {name} --output {out}/prepared --archives tars")
    assert "--nproc-per-node 4" in trained and trained.endswith(" x=1")
    assert f"{out}/prepared/data-bin" in trained and f"{folder}/checkpoints" in trained
    assert f"--inputs {folder}/checkpoints" in averaged
    assert averaged.endswith(f"--output {folder}/averaged.pt")
    assert evaluated.startswith(
        f"admin-nmt evaluate {out}/prepared/data-bin --path {folder}/averaged.pt"
    )
    assert f"--output {folder}/scores" in evaluated


@pytest.mark.parametrize(
    ("name", "override", "there", "chosen"),
    [
        ("iwslt14-de-en", "x=1", ["9", "10", "11", "_best", "_last"], "epoch 3"),
        ("iwslt14-de-en", "x=1", ["_last"], "checkpoint_last.pt"),
        ("iwslt14-de-en", "x=1", ["_1_500", "_best", "_last"], "checkpoint_best.pt"),
        ("iwslt14-de-en", "checkpoint.keep_last_epochs=2", ["9", "10", "11"], "epoch 2"),
        ("iwslt14-de-en", "+checkpoint.keep_last_epochs=20", [*map(str, range(1, 15))], "epoch 14"),
        ("iwslt14-de-en", "checkpoint.best_checkpoint_metric=bleu", ["9", "_best"], ""),
        ("multi30k", "--max-update=600", ["_1_200", "_2_400", "_last"], "update 2"),
        ("multi30k", "--max-update=100", ["_last"], "checkpoint_last.pt"),
    ],
)
def test_what_a_shorter_training_has_left_is_averaged(
    name: str, override: str, there: list[str], chosen: str,
    calls: Callable[..., list[str]], tmp_path: Path,
) -> None:  # fmt: skip
    folder = tmp_path / "outputs" / name
    if name != "multi30k":
        folder /= "iwslt14_de_en_admin"
    (folder / "checkpoints").mkdir(parents=True)
    for checkpoint in there:
        (folder / "checkpoints" / f"checkpoint{checkpoint}.pt").touch()
    averaged, scored = calls(name, "--procs", "1", "--", override)[-2:]
    if not chosen:
        assert "torchrun" in averaged and "/checkpoint_best.pt" in scored
        return
    assert f"--path {folder}/averaged.pt" in scored
    if chosen.endswith(".pt"):
        inputs = f"{folder}/checkpoints/{chosen}"
    else:
        kind, count = chosen.split()
        inputs = f"{folder}/checkpoints --num-{kind}-checkpoints {count}"
    assert averaged == f"admin-nmt average --inputs {inputs} --output {folder}/averaged.pt"


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_each_recipe_has_its_folder_and_its_published_choice_of_checkpoint(
    config: Path, calls: Callable[..., list[str]], tmp_path: Path
) -> None:
    name, recipe = "-".join(config.stem.split("_")[:3]), config.stem
    commands = calls(name, "--data", str(tmp_path), "--procs", "4", ADMIN_NMT_RECIPE=recipe)
    out = tmp_path / "outputs" / name
    assert f"--config-name {recipe} " in commands[0]
    assert f"checkpoint.save_dir='{out}/{recipe}/checkpoints'" in commands[0]
    saving = yaml.safe_load(config.read_text())["checkpoint"]
    path = "averaged.pt"
    if saving.get("best_checkpoint_metric") == "bleu" or "keep_last_epochs" not in saving:
        path = "checkpoints/checkpoint_best.pt"
    else:
        averaged = commands.pop(1)
        assert f" --num-epoch-checkpoints {saving['keep_last_epochs']} " in averaged
    assert f"--path {out}/{recipe}/{path} --output {out}/{recipe}/scores" in commands[1]
    assert len(commands) == 2


@pytest.mark.parametrize(
    ("name", "length", "longer"),
    [
        ("multi30k", ["--max-update", "600"], ["--max-update=900"]),
        ("iwslt14-de-en", ["optimization.max_update=600"], ["++optimization.max_update=900"]),
    ],
)
def test_a_folder_is_of_one_training(
    name: str, length: list[str], longer: list[str], calls: Callable[..., list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "outputs" / name
    if name != "multi30k":
        folder /= "iwslt14_de_en_admin"
    calls(name, "--procs", "1", "--", "misspelt=1")  # and nothing was trained
    calls(name, "--procs", "1", "--", "x=1 2", *length)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "checkpoint_last.pt").touch()
    for options in (["x=1 2", *length], ["x=1 2", *longer], ["x=1 2"]):
        assert "torchrun" in "".join(calls(name, "--procs", "1", "--", *options))
    default = {"multi30k": 1800, "iwslt14-de-en": 100000}[name]
    for options, said in (
        (["--", "x=2", *length], r"a training with other options (x=1\ 2; now x=2)"),
        ([], r"a training with other options (x=1\ 2; now none)"),
        (
            ["--data", "here", "--", "x=1 2"],
            f"a training on prepared/data-bin, not on {tmp_path}/here",
        ),
        (
            ["--", *length, "x=1 2"],
            f"a training to {default} unlimited unlimited (updates, epochs, hours), which may be longer "
            "than one to 600 unlimited unlimited",
        ),
        (
            [
                "--",
                "x=1 2",
                *(["--max-epoch", "9"] if name == "multi30k" else ["+optimization.max_epoch=9"]),
            ],
            f"a training to {default} unlimited unlimited (updates, epochs, hours), which may be longer "
            f"than one to {default} 9 unlimited",
        ),
    ):
        (tmp_path / "here").mkdir(exist_ok=True)
        refused = run(f"{name}.sh", "--procs", "1", *options, path=tmp_path, cwd=tmp_path)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1
        assert f"{folder} holds {said}: give another folder" in refused.stderr
    (tmp_path / "outputs").rename(tmp_path / "moved")
    options = ("--output", str(tmp_path / "moved" / name), "--procs", "1", "--")
    moved = calls(name, *options, "x=1 2")
    assert len(moved) == 4
    settings = next((tmp_path / "moved").rglob("settings.txt"))
    settings.unlink()  # as an earlier version left the folder
    calls(name, *options, "y")
    assert settings.read_text() == f"prepared/data-bin\ny\n{default} unlimited unlimited\n"


def test_checkpoints_may_be_on_another_disk(
    calls: Callable[..., list[str]], tmp_path: Path
) -> None:
    folder, disk = tmp_path / "outputs" / "multi30k", tmp_path / "disk"
    calls("multi30k", "--procs", "1", "--", "x=1")
    (disk / "earlier").mkdir(parents=True)
    (folder / "checkpoints").symlink_to(disk)
    for name in ("checkpoint_1_200.pt", "checkpoint_last.pt", "earlier/checkpoint_2_400.pt"):
        (disk / name).touch()
    averaged = calls("multi30k", "--procs", "1", "--", "x=1")[-2]
    assert f"--inputs {folder}/checkpoints --num-update-checkpoints 1 " in averaged
    refused = run("multi30k.sh", "--procs", "1", path=tmp_path, cwd=tmp_path)
    assert refused.returncode == 2 and "with other options" in refused.stderr


def test_hydra_reads_folders_of_any_name(calls: Callable[..., list[str]], tmp_path: Path) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    data, output = tmp_path / "Träume, it's (1)=2", tmp_path / "größe"
    data.mkdir()
    train = calls("iwslt14-de-en", "--data", str(data), "--output", str(output), "--procs", "1")[0]
    options = re.findall(r"\S+='.*?(?<!\\)'", train)
    read = OverridesParser.create().parse_overrides(options)
    folder = output / "iwslt14_de_en_admin"
    assert {option.key_or_group: option.value() for option in read} == {
        "task.data": str(data),
        "checkpoint.save_dir": str(folder / "checkpoints"),
        "hydra.run.dir": str(folder),
    }


def test_an_unknown_recipe_is_named(tmp_path: Path) -> None:
    result = run("iwslt14-de-en.sh", path=BIN, cwd=tmp_path, ADMIN_NMT_RECIPE="iwslt14")
    assert result.returncode == 2
    assert "there is no configs/iwslt14.yaml" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("wmt14-en-de", "iwslt14_de_en_rdrop"), ("wmt14-en-fr", "wmt14_en_de_60l_12l")],
)
def test_a_recipe_of_another_corpus_is_refused(name: str, recipe: str, tmp_path: Path) -> None:
    result = run(f"{name}.sh", path=BIN, cwd=tmp_path, ADMIN_NMT_RECIPE=recipe)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert f"configs/{recipe}.yaml is not for {name}" in result.stderr


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
