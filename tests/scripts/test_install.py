"""`scripts/install.sh` chooses an interpreter and an installer; the programs that it calls are stubs."""

import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "install.sh"
BROKEN = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"
#: Runs, is new enough, and makes an environment whose python is a copy of itself; its calls are kept in
#: the current folder, which is the project's.
WORKS = """#!/bin/sh
echo "$(basename "$0") $*" >> calls
[ "$1" = --version ] && echo Python 3.x
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
case "$2" in *"!= (3, 11)"*) exit 1 ;; esac
exit 0
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    shutil.copytree(SCRIPT.with_name("lib"), tmp_path / "scripts" / "lib")
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    return tmp_path


def install(project: Path, programs: dict[str, str], **variables: str) -> tuple[str, list[str]]:
    """What install.sh says, and the calls of the programs that work."""
    calls = project / "calls"
    calls.write_text("")
    for name in ("python3.12", "python3.11", "python3"):
        stub = project / "bin" / name
        stub.write_text(programs.get(name, BROKEN))
        stub.chmod(0o755)
    if "uv" in programs:
        (project / "bin" / "uv").write_text(programs["uv"])
        (project / "bin" / "uv").chmod(0o755)
    # Started as README says, by a user whose CDPATH leads to another folder of that name.
    (project / "elsewhere" / "scripts").mkdir(parents=True, exist_ok=True)
    found = subprocess.run(
        ["bash", "scripts/install.sh"], capture_output=True, text=True, cwd=project,
        env={"PATH": f"{project / 'bin'}:{os.defpath}", "HOME": str(project)}
        | {"CDPATH": str(project / "elsewhere")} | variables,
    )  # fmt: skip
    return found.stdout + found.stderr, calls.read_text().splitlines()


@pytest.mark.parametrize(
    ("working", "chosen"),
    [
        (("python3.12", "python3.11", "python3"), "python3.12"),
        (("python3.11", "python3"), "python3.11"),
        (("python3",), "python3"),
    ],
)
def test_the_first_interpreter_that_works(
    project: Path, working: tuple[str, ...], chosen: str
) -> None:
    """Of three that are all on PATH, as the shims of a version manager are."""
    said, calls = install(project, dict.fromkeys(working, WORKS), ADMIN_NMT_UV="0")
    assert f"{chosen} -m venv .venv" in calls
    installed = [call for call in calls if call.startswith("python -m pip ")]
    assert "torch==" in installed[1] and "--no-build-isolation --editable .[test]" in installed[-1]
    assert "pyenv" not in said and "== installed in " in said
    assert said.count(" s\n") == 3  # seconds of each step
    assert install(project, dict.fromkeys(working, WORKS))[0] == ""  # nothing is left to do


def test_no_interpreter_is_one_line(project: Path) -> None:
    said, calls = install(project, {})
    assert said.count("\n") == 1 and "set PYTHON to another one" in said
    assert not calls and not (project / ".venv").exists()


def test_an_installed_environment_needs_no_other_interpreter(project: Path) -> None:
    install(project, {"python3": WORKS})
    assert install(project, {})[0] == ""
    own = project / ".venv" / "bin" / "python"
    (project / ".venv" / "pyvenv.cfg").touch()
    own.unlink()
    own.symlink_to("/nowhere/python3.11")  # of a system that has been upgraded
    _, calls = install(project, {"python3": WORKS}, ADMIN_NMT_UV="0")
    assert "python3 -m venv .venv --clear" in calls


def test_another_pytorch_is_installed_on_request(project: Path) -> None:
    def installed(**variables: str) -> bool:
        _, calls = install(project, {"python3": WORKS}, ADMIN_NMT_UV="0", **variables)
        return any(call.startswith("python -m pip ") for call in calls)

    assert installed() and not installed() and not installed(ADMIN_NMT_TORCH="torch==2.13.0")
    assert installed(ADMIN_NMT_TORCH="torch==2.13.0+cpu")
    assert not installed(ADMIN_NMT_TORCH="torch==2.13.0+cpu") and not installed()
    # Another reason to install does not bring the default back.
    (project / "constraints.txt").touch()
    assert installed() and "torch==2.13.0+cpu" in (project / "calls").read_text()
    assert installed(ADMIN_NMT_TORCH="torch==2.13.0")


def test_a_pytorch_that_nobody_chose_follows_the_tested_one(project: Path) -> None:
    install(project, {"python3": WORKS}, ADMIN_NMT_UV="0")
    stamp = project / ".venv" / ".admin_nmt_installed"
    *places, torch, whose = stamp.read_text().splitlines()
    assert (torch, whose) == ("torch==2.13.0", "ours")
    for kept, installed in (
        (["torch==2.12.0", "ours"], ["torch==2.13.0", "ours"]),
        (["torch==2.12.0", "given"], ["torch==2.12.0", "given"]),
        (["torch==2.12.0"], ["torch==2.12.0", "given"]),  # of an earlier version
        (["torch==2.13.0"], ["torch==2.13.0", "ours"]),
    ):
        stamp.write_text("\n".join([*places, *kept]) + "\n")
        os.utime(stamp, (0, 0))
        _, calls = install(project, {"python3": WORKS}, ADMIN_NMT_UV="0")
        assert any(installed[0] in call for call in calls)
        assert stamp.read_text().splitlines()[2:] == installed
    # From now on it is wanted, whatever the tested one will be.
    _, calls = install(project, {"python3": WORKS}, ADMIN_NMT_TORCH="torch==2.13.0")
    assert not any("install" in call for call in calls)
    assert stamp.read_text().splitlines() == [*places, "torch==2.13.0", "given"]


def test_what_builds_the_package_is_installed_before_it() -> None:
    """Without build isolation, pip does not look at what the build requires."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for requirement in project["build-system"]["requires"]:
        for name in ("scripts/install.sh", "docs/install.md"):
            assert requirement in (ROOT / name).read_text(), name


@pytest.mark.parametrize("old_stamp", [True, False])
@pytest.mark.parametrize("change", ["stays", "moved", "copied"])
def test_an_environment_that_was_moved_or_copied_is_refused(
    project: Path, change: str, old_stamp: bool
) -> None:
    first, second = project / "first", project / "second place"
    first.mkdir()
    for name in ("scripts", "bin", "pyproject.toml", "constraints.txt"):
        (project / name).rename(first / name)
    # Its python answers as that of an editable installation.
    answer = f'\ncase "$*" in *find_spec*) echo "{first}/admin_nmt/__init__.py" ;; esac'
    python = WORKS.replace('\ncase "$2" in', f'{answer}\ncase "$2" in')
    install(first, {"python3": python}, ADMIN_NMT_UV="0")
    (first / ".venv" / "bin" / "admin-nmt").write_text(f"#!{first}/.venv/bin/python\n")
    if old_stamp:
        (first / ".venv" / ".admin_nmt_installed").write_text("")
    if change == "moved":
        first.rename(second)
    elif change == "copied":
        shutil.copytree(first, second)
    place = first if change == "stays" else second
    said, calls = install(place, {"python3": python}, ADMIN_NMT_UV="0")
    assert not any(" -m pip " in call for call in calls)
    refused = f"install.sh: error: .venv was made as {first}/.venv and does not work here"
    assert said.startswith(refused) if change != "stays" else said == ""


def test_an_environment_of_another_folder_of_the_project_is_installed_anew(project: Path) -> None:
    install(project, {"python3": WORKS}, ADMIN_NMT_UV="0")
    stamp = project / ".venv" / ".admin_nmt_installed"
    stamp.write_text(stamp.read_text().replace(f"{project}\n", f"{project}-before\n", 1))
    _, calls = install(project, {"python3": WORKS}, ADMIN_NMT_UV="0")
    assert "--editable .[test]" in calls[-1]


def test_an_environment_without_pip_gets_it(project: Path) -> None:
    """As `python3 -m venv` leaves one where Debian's python3-venv is missing."""
    without = WORKS.replace("exit 0", "[ \"$2\" != 'import pip' ]")
    _, calls = install(project, {"python3": without}, ADMIN_NMT_UV="0")
    assert calls.index("python -m ensurepip") < next(
        place for place, call in enumerate(calls) if call.startswith("python -m pip ")
    )


@pytest.mark.parametrize("name", ["quickstart.sh", "reproduce.sh"])
def test_folders_on_the_command_line_are_those_of_the_caller(project: Path, name: str) -> None:
    (project / "scripts" / "install.sh").write_text("")
    shutil.copy(SCRIPT.with_name(name), project / "scripts")
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$PWD" "$@"\n')
    python.chmod(0o755)
    found = subprocess.run(
        ["bash", project / "scripts" / name, "--corpus", "mine"], capture_output=True, text=True,
        cwd=project / "bin", env={"PATH": os.defpath},
    )  # fmt: skip
    assert found.stdout.split()[0] == str(project / "bin"), found.stderr
    assert found.stdout.endswith(" --corpus mine\n")


@pytest.mark.parametrize("luggage", [True, False])
def test_half_an_environment_is_completed_before_the_gpu_check(
    project: Path, luggage: bool
) -> None:
    """An installation that was killed leaves its interpreter behind."""
    scripts, whole = project / "scripts", project / "whole"
    (scripts / "gpu_check").mkdir()
    for place, name in ((scripts, "install.sh"), (scripts / "gpu_check", "unpack.sh")):
        (place / name).write_text(f"echo {name}; touch {whole}\n")
    shutil.copy(SCRIPT.with_name("gpu-check.sh"), scripts)
    if luggage:
        (project / "luggage").mkdir()
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1" = -P ] && exec test -e {whole}\necho "$@"\n')
    python.chmod(0o755)
    said = [
        subprocess.run(
            ["bash", scripts / "gpu-check.sh"],
            capture_output=True,
            text=True,
            env={"PATH": os.defpath},
        ).stdout
        for _ in range(2)
    ]
    made = "unpack.sh" if luggage else "install.sh"
    assert said == [f"{made}\n-m gpu_check\n", "-m gpu_check\n"]


@pytest.mark.parametrize("theirs", [True, False])
def test_unpacking_that_fails_removes_only_what_it_made(project: Path, theirs: bool) -> None:
    python = project / "bin" / "python3"
    python.write_text(
        f"""#!/bin/sh
case "$*" in
*"-m venv "*) mkdir -p {project}/venv/bin && cp "$0" {project}/venv/bin/python ;;
*get_path*) echo {project}/venv ;;
*install*) exit 1 ;;
esac
"""
    )
    python.chmod(0o755)
    if theirs:
        (project / "venv").mkdir()
        (project / "venv" / "kept").touch()
    (project / "scripts" / "gpu_check").mkdir()
    shutil.copy(SCRIPT.parent / "gpu_check" / "unpack.sh", project / "scripts" / "gpu_check")
    found = subprocess.run(
        ["bash", project / "scripts" / "gpu_check" / "unpack.sh", project / "venv"],
        capture_output=True, text=True, env={"PATH": f"{project / 'bin'}:{os.defpath}"},
    )  # fmt: skip
    assert found.returncode == 1 and (project / "venv" / "kept").exists() == theirs
    assert (project / "venv").exists() == theirs


def test_the_quickstart_installs_nothing_beside_an_active_environment(project: Path) -> None:
    (project / "scripts" / "install.sh").write_text("echo installing\n")
    shutil.copy(SCRIPT.with_name("quickstart.sh"), project / "scripts")
    for place in (project / "active" / "bin", project / ".venv" / "bin"):
        place.mkdir(parents=True)
        for name in ("python", "admin-nmt"):
            (place / name).write_text('#!/bin/sh\necho "$0"\n')
            (place / name).chmod(0o755)

    def said(active: str) -> list[str]:
        return subprocess.run(
            ["bash", project / "scripts" / "quickstart.sh"], capture_output=True, text=True,
            env={"PATH": f"{project / active / 'bin'}:{os.defpath}"},
        ).stdout.split()  # fmt: skip

    assert said("active") == [str(project / "active" / "bin" / "python")]
    assert said(".venv") == ["installing", str(project / ".venv" / "bin" / "python")]


def test_uv_installs_where_it_is(project: Path) -> None:
    _, calls = install(project, {"python3.12": WORKS, "uv": WORKS})
    assert sum(call.startswith("uv pip install ") for call in calls) == 3
    assert not any("-m pip" in call for call in calls)


def test_help_and_unknown_arguments_install_nothing(project: Path) -> None:
    script = project / "scripts" / "install.sh"
    for arguments, status, said in ((["--help"], 0, "ADMIN_NMT_TORCH"), (["x"], 2, "error: x:")):
        found = subprocess.run(
            ["bash", script, *arguments], capture_output=True, text=True,
            env={"PATH": os.defpath, "HOME": str(project)},
        )  # fmt: skip
        assert found.returncode == status and said in found.stdout + found.stderr
    assert not (project / ".venv").exists()
