"""The quickstart runs from nothing to scores and plots, and a second run has nothing left to do."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from admin_nmt.errors import UserError
from tests.support.programs import stopped_alone
from trainings import Model, Training, estimate_minutes, run_once

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = REPOSITORY / "scripts"
Quickstart = Callable[..., subprocess.CompletedProcess[str]]


def quickstart(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            SCRIPTS / "quickstart" / "run.py",
            "--output",
            output,
            *options,
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=output.parent,
        timeout=600,
    )


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Quickstart]:
    """The same by `tests.support.quickstart`, which imports PyTorch and fairseq once."""
    paths = map(str, (REPOSITORY, SCRIPTS, SCRIPTS / "quickstart"))
    command = [sys.executable, "-m", "tests.support.quickstart"]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | environment,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout

        def run(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
            process.stdin.write(json.dumps(["--output", str(output), *options]) + "\n")
            process.stdin.flush()
            return subprocess.CompletedProcess(command, *json.loads(process.stdout.readline()))

        yield run


@pytest.mark.slow
@pytest.mark.parametrize("programs", ["forked", pytest.param("started", marks=pytest.mark.long)])
def test_quickstart_makes_scores_and_plots_and_resumes(
    tmp_path: Path, programs: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue("forking") if programs == "forked" else quickstart
    options = ("--layers", "2-1", "--updates", "10", "--pairs", "400", "--seed", "3")
    for number in ("--updates", "--pairs"):
        wrong = run(tmp_path / "out", number, "0")
        assert wrong.returncode == 2 and f"{number} 0: give a number above 0" in wrong.stderr
    corpus = tmp_path / "out" / "corpus"  # of a run that was interrupted while it made it
    corpus.mkdir(parents=True)
    for name in ("test.de", "test.en"):
        (corpus / name).touch()
    first = run(tmp_path / "out", *options)
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.search(r"for \d+ updates.*: (about \d+ minutes|less than a minute)", first.stdout)
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["models"]
    assert [row["model"] for row in rows] == ["ADMIN 2L-1L", "post-LN 2L-1L"]
    for row in rows:
        assert row["seed"] == 3 and row["updates"] == 10 and "version:2." in row["signature"]
        assert row["train_ppl"] > 1 and 0 < row["position_share"] < 1
        line = f"| {row['model']:13} | {row['BLEU']:6.2f} |"
        assert line.replace(" ", "") in first.stdout.replace(" ", "")
    assert rows[0]["signature"] in first.stdout
    for name in ("training.png", "profile.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    profile = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert len(profile["sublayers"]) == 2 * 2 + 3 * 1
    logs = [tmp_path / "out" / f"2L-1L-{init}" / "train.log" for init in ("admin", "default")]
    results = [tmp_path / "out" / "profile.json"]
    results += [log.with_name("averaged.pt") for log in logs]
    results += [log.parent / "evaluation" / "scores.json" for log in logs]
    times = [path.stat().st_mtime_ns for path in logs + results]
    train = set((tmp_path / "out" / "corpus" / "train.de").read_text().splitlines())
    test = (tmp_path / "out" / "corpus" / "test.de").read_text().splitlines()
    assert len(test) == 10 and not train & set(test)

    second = run(tmp_path / "out", *options, "--skip-baseline")
    assert second.returncode == 0, second.stdout + second.stderr
    # Nothing was trained, averaged, translated or profiled again.
    assert [path.stat().st_mtime_ns for path in logs + results] == times
    assert json.loads((tmp_path / "out" / "results.json").read_text())["models"] == rows[:1]
    assert "post-LN" not in second.stdout

    other = run(tmp_path / "out", *options, "--seed", "4", "--skip-baseline")
    assert other.returncode == 1
    assert "holds another training" in other.stderr and "seed=4" in other.stderr.splitlines()[-1]
    shorter = run(tmp_path / "out", *options, "--updates", "8", "--skip-baseline")
    assert shorter.returncode == 1 and "==" not in shorter.stdout
    assert "holds a training of 10 updates, not --updates 8" in shorter.stderr.splitlines()[-1]
    larger = run(tmp_path / "out", *options, "--pairs", "500", "--skip-baseline")
    assert larger.returncode == 1
    assert "corpus holds 400 pairs, not --pairs 500" in larger.stderr.splitlines()[-1]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["models"] == rows[:1]


def test_no_more_checkpoints_are_averaged_than_there_are_updates() -> None:
    model = Model((2, 1), 32, max_tokens=300, updates=1, lr=1e-3, warmup=1)
    found = [replace(model, updates=updates).num_averaged for updates in (1, 2, 3, 1400)]
    assert found == [1, 2, 3, 3]


@pytest.mark.long
def test_of_one_or_two_updates_as_many_checkpoints_are_averaged(
    tmp_path: Path, forking: Quickstart
) -> None:
    options = ("--layers", "1-1", "--pairs", "400", "--skip-baseline")
    for updates, said in ((1, "the last 1 checkpoint,"), (2, "the last 2 checkpoints,")):
        done = forking(tmp_path / "out", *options, "--updates", str(updates))
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"averaging {said}" in done.stdout
        row = json.loads((tmp_path / "out" / "results.json").read_text())["models"][0]
        assert row["updates"] == updates


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    wrong = quickstart(tmp_path / "out", "--layers", "deep")
    assert wrong.returncode == 2
    assert "--layers deep: give encoder and decoder layers" in wrong.stderr.splitlines()[-1]
    missing = quickstart(tmp_path / "out", "--corpus", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert missing.stderr.splitlines()[-1] == (
        f"quickstart.sh: error: --corpus {tmp_path / 'none'} is not a folder"
    )


def test_unequal_corpus_is_refused_with_both_counts(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "valid", "test"):
        (corpus / f"{split}.de").write_text("ein Haus\nzwei Häuser\n")
        (corpus / f"{split}.en").write_text("a house\n" if split == "train" else "a\nb\n")
    result = quickstart(tmp_path / "out", "--corpus", str(corpus))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert "train.de" in line and "train.en" in line and "2" in line and "1" in line


#: The quickstart while it translates.
TRANSLATING = """
import argparse
from pathlib import Path
import run

folder = Path(sys.argv[1])
run.parse_arguments = lambda: argparse.Namespace(output=folder)
run.prepare = lambda args: None
model = argparse.Namespace(num_averaged=3)
trainings = [argparse.Namespace(name=name, model=model) for name in (1, 2)]
run.wanted_trainings = lambda args, data: trainings
run.train = lambda data, trainings: None
run.score = lambda data, training: run.run(PROGRAM, folder / f"{training.name}.log")
sys.exit(run.main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_programs_end_with_the_quickstart(number: int, tmp_path: Path) -> None:
    status, said, running = stopped_alone(
        TRANSLATING, number, tmp_path, SCRIPTS / "quickstart", SCRIPTS
    )
    assert status == 130 and "interrupted; the same command goes on" in said
    assert not running


def test_a_step_is_done_again_when_its_inputs_or_its_command_have_changed(tmp_path: Path) -> None:
    source, output, log = (tmp_path / name for name in ("source", "output", "step.log"))

    def lines(addition: str = "x") -> int:
        """Lines in the output of a step that adds one."""
        command = ["bash", "-c", f"echo {addition} >> {output}"]
        run_once(command, log, [source], output)
        return len(output.read_text().splitlines())

    source.touch()
    assert [lines(), lines()] == [1, 1]
    later = output.stat().st_mtime + 5
    os.utime(source, (later, later))
    assert lines() == 2
    os.utime(source, (later - 50, later - 50))
    assert [lines(), lines("y"), lines("y")] == [2, 3, 3]
    output.unlink()
    assert lines("y") == 1
    with pytest.raises(UserError, match="bash failed"):
        run_once(["bash", "-c", "exit 1"], log, [source], output)
    assert lines("y") == 2  # what a failed step left is not taken for the result


def test_what_a_kill_left_empty_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(command: list[str | Path], log: Path) -> None:
        log.write_text('{"ups": "2.0"}')

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainings.run", timed)
    monkeypatch.setattr("trainings.train_command", lambda *_: ["true"])
    model = Model((2, 1), 32, max_tokens=300, updates=120, lr=1e-3, warmup=4)
    for name in ("seconds_per_update.json", "model", "done"):
        (tmp_path / name).touch()
    training = Training(tmp_path, model, tmp_path)
    for _ in range(2):
        assert estimate_minutes(tmp_path, model, tmp_path) == 1
        monkeypatch.setattr("trainings.run", killed)  # nothing is timed again
    training.start()
    assert training.process and training.process.wait() == 0 and training.check()
    with monkeypatch.context() as patch:  # while a file is written
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            training.check()
    again = Training(tmp_path, model, tmp_path)
    again.start()
    assert again.process is None


def test_a_training_is_made_longer_but_not_shorter(tmp_path: Path) -> None:
    model = Model((2, 1), 32, max_tokens=300, updates=10, lr=1e-3, warmup=4)
    (tmp_path / "checkpoints").mkdir()
    state = {"model": {"weight": torch.zeros(1)}, "optimizer_history": [{"num_updates": 10}]}
    torch.save(state, tmp_path / "checkpoints" / "checkpoint_last.pt")
    for updates in (10, 20):
        Training(tmp_path, replace(model, updates=updates), tmp_path)
    with pytest.raises(UserError, match="holds a training of 10 updates, not --updates 8: give"):
        Training(tmp_path, replace(model, updates=8), tmp_path)
