"""Chains of programs (compose, heads, reproduce): run once, resumed, recorded; their small parts."""

import csv
import json
import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.errors import UsageError, UserError
from studies import chain, compose, effects, heads, reproduce, study
from studies.chain import step
from tests.support.programs import stopped_alone

REPOSITORY = Path(__file__).parents[2]
SIZE_OF = {"compose": compose.SIZES, "heads": heads.SIZES}


def touch(name: str, path: Path) -> chain.Step:
    """A step that adds a line to `path`, and fails where there is a file `fail` of its name beside it."""
    flag = path.with_name(f"fail-{name}")
    program = (
        f"import os; open({str(path)!r}, 'a').write('{name}\\n'); "
        f"raise SystemExit(os.path.exists({str(flag)!r}))"
    )
    return step(name, "python", "-c", program)


def test_a_chain_runs_each_step_once_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    lines, folder = tmp_path / "lines", tmp_path / "chain"
    steps = [touch(name, lines) for name in "abc"]
    (tmp_path / "fail-b").touch()
    with pytest.raises(UserError, match=r"a program failed, see .*logs/b\.log"):
        chain.run(steps, folder)
    assert chain.done(folder, "b") is None
    # What a step has left belongs to its command.
    with pytest.raises(UserError, match=r"begun/b\.json is of another command .*: give another"):
        chain.run([steps[0], touch("b", tmp_path / "other")], folder)
    (tmp_path / "fail-b").unlink()
    chain.run(steps, folder)
    chain.run(steps, folder)
    assert lines.read_text().split() == ["a", "b", "b", "c"]
    recorded = (folder / "commands.sh").read_text().splitlines()
    assert [shlex.split(line) for line in recorded] == [list(one.command) for one in steps]
    ended = chain.done(folder, "c")
    assert ended is not None and ended["seconds"] > 0
    with pytest.raises(
        UserError, match=r"c\.json is of another command .*: give another --output$"
    ):
        chain.run([*steps[:2], touch("c", tmp_path / "other")], folder)


def test_a_step_is_not_done_anew_under_results_that_follow_from_it(tmp_path: Path) -> None:
    """Later steps would keep theirs, and a training would find its last checkpoint and end."""
    lines, folder = tmp_path / "lines", tmp_path / "chain"
    steps = [touch(name, lines) for name in "abc"]
    chain.run(steps, folder)
    chain.mark(folder, "b").unlink()
    with pytest.raises(UserError, match=r"c\.json is there, but b, .* give another --output$"):
        chain.run(steps, folder)
    assert lines.read_text().split() == ["a", "b", "c"]


@pytest.mark.parametrize("command", ["compose", "heads"])
def test_trainings_are_commands_that_fairseq_understands(
    command: str, data_bin: Path, tmp_path: Path
) -> None:
    from fairseq import options

    import admin_nmt  # noqa: F401

    given = [str(data_bin), "--output", str(tmp_path)]
    for size in ("small", "medium"):
        if command == "heads":
            args = heads.parse_arguments([*given, "--size", size])
            trainings = [heads.training(args, tmp_path)]
        else:
            args = compose.parse_arguments([*given, "--size", size])
            trainings = [compose.training(args, s, 1, tmp_path) for s in compose.SETTINGS]
        for one in trainings:
            words = [str(word) for word in one[1:]]
            parsed = options.parse_args_and_arch(options.get_training_parser(), words)
            assert parsed.max_epoch == int(
                re.findall(r"--max-epoch (\d+)", SIZE_OF[command][size])[-1]
            )


def test_budgets_follow_the_cheapest_curve() -> None:
    flat = [(0.0, 30.0), (0.5, 29.9), (1.0, 29.0)]
    steep = [(0.0, 30.0), (0.5, 20.0), (1.0, 0.0)]
    counts = {"E": 8, "A": 8}
    assert heads.budgets({"E": flat, "A": steep}, counts, 4) == {"E": 4, "A": 0}
    assert heads.budgets({"E": flat, "A": steep}, counts, 10) == {"E": 8, "A": 2}
    better = [(0.0, 30.0), (0.5, 30.5), (1.0, 0.0)]
    assert heads.budgets({"E": flat, "A": better}, counts, 5) == {"E": 1, "A": 4}
    with pytest.raises(UserError, match="the curves end at 16 heads, 17 are to go"):
        heads.budgets({"E": flat, "A": steep}, counts, 17)


def test_policies_take_equally_many_heads() -> None:
    from admin_nmt.pruning.policies import num_to_remove

    counts = {"E": 48, "A": 48, "D": 48}
    assert heads.even(counts, 58) == {"E": 20, "A": 19, "D": 19}
    assert heads.even({"E": 60, "A": 12, "D": 12}, 7) == {"E": 5, "A": 1, "D": 1}
    words = heads.shares({"E": 20, "A": 19, "D": 1}, counts)
    for option, share, count in zip(words[::2], words[1::2], (20, 19, 1), strict=True):
        assert option in heads.OPTIONS.values()
        assert num_to_remove(float(share), 48) == count


def test_a_step_that_removes_no_head_is_passed() -> None:
    points = [(0.0, 30.0), (0.0001, 30.0), (0.5, 20.0)]
    assert heads.budgets({"D": points}, {"D": 2}, 1) == {"D": 1}


def test_heads_reads_what_prune_sweep_wrote() -> None:
    points = [{"fraction": 0.0, "bleu": 9.0, "removed": []}]
    points += [{"fraction": 0.4, "bleu": 8.0, "removed": ["E:1:2"]}]
    sweep: dict[str, Any] = {"curves": [{"group": "EAD", "order": "rerank", "points": points}]}
    assert heads.curves_of(sweep, "rerank") == {"EAD": [(0.0, 9.0), (0.4, 8.0)]}
    assert heads.removed_at(sweep, "rerank", 0.1 + 0.3) == ["E:1:2"]
    with pytest.raises(UserError, match=r"no curve in order importance of all kinds at 0\.4"):
        heads.removed_at(sweep, "importance", 0.4)


@pytest.mark.parametrize("name", [*reproduce.NAMES, "all"])
@pytest.mark.parametrize("size", reproduce.SIZES)
def test_reproduce_says_what_it_would_run(
    name: str, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [name, "--size", size, "--corpus", str(tmp_path), "--dry-run"]
    assert reproduce.main([*words, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    for one in reproduce.NAMES if name == "all" else (name,):
        assert re.search(rf"^{one}: ", printed, re.M)
    for script in re.findall(r"\S+\.(?:sh|py)\b", printed):
        assert (REPOSITORY / script).is_file()
    for recipe in re.findall(r"ADMIN_NMT_RECIPE=(\w+)", printed):
        assert (REPOSITORY / "configs" / f"{recipe}.yaml").is_file()
    assert not (tmp_path / "out").exists()


def test_reproduce_starts_studies_with_options_that_they_have(tmp_path: Path) -> None:
    """The names of runs, settings and options that `reproduce` gives exist."""
    args = reproduce.parse_arguments(["all", "--corpus", str(tmp_path)])
    depth_words = reproduce.studies_of("depth", args, tmp_path, tmp_path)[0].command
    from studies import depth

    parsed = study.parser("").parse_args(depth_words[3:])
    assert set(parsed.only) <= {run.name for run in depth.RUNS}
    for name, parse in (("compose", compose.parse_arguments), ("heads", heads.parse_arguments)):
        words = reproduce.studies_of(name, args, tmp_path, tmp_path)[0].command
        assert parse(words[3:]).size == "small"


def test_reproduce_refuses_what_it_cannot_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(["rdrop"]) == 2
    assert "--corpus DIR is needed" in capsys.readouterr().err
    assert reproduce.main(["rdrop", "--corpus", str(tmp_path / "none")]) == 2
    assert "none is not a folder" in capsys.readouterr().err
    words = [
        "speed",
        "--device",
        "cuda",
        "--corpus",
        str(tmp_path),
        "--output",
        str(tmp_path / "o"),
    ]
    assert reproduce.main(words) == 2
    assert "leave --device cuda out, or give --size medium" in capsys.readouterr().err
    assert compose.main([str(tmp_path), "--output", str(tmp_path / "o")]) == 1
    assert "no preparation.json" in capsys.readouterr().err


def test_reproduce_names_corpus_and_device_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are the same from wherever they are called; what fits one GPU runs on it."""
    monkeypatch.chdir(tmp_path)
    for size, device in (("small", "cpu"), ("medium", "cuda")):
        args = reproduce.parse_arguments(["heads", "--corpus", ".", "--size", size])
        (prepare,) = reproduce.preparation(args, tmp_path)
        assert value_of(prepare.command, "--corpus") == str(tmp_path)
        (heads_step,) = reproduce.studies_of("heads", args, tmp_path, tmp_path)
        assert value_of(heads_step.command, "--device") == device


def test_effects_is_given_settings_that_it_has(tmp_path: Path) -> None:
    args = reproduce.parse_arguments(["rdrop", "--corpus", str(tmp_path), "--size", "medium"])
    for name in ("rdrop", "realformer"):
        words = reproduce.studies_of(name, args, tmp_path, tmp_path)[0].command
        assert effects.parse_arguments(words[3:]).study == name


def value_of(words: Sequence[str], option: str) -> str:
    return words[words.index(option) + 1]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands of a chain, which are not run: a training logs two epochs of 10 updates more than
    before, with a BLEU that its seed and criterion decide, and an evaluation translates two lines.
    R-Drop stops early in epoch 4, and as `fairseq-train` with our package it trains no further then."""
    ran: list[list[str]] = []
    reference = tmp_path / "reference"
    reference.write_text("one two three four\nfive six seven eight\n")

    def call(words: Sequence[object], log: Path, deadline: float | None) -> None:
        given = [str(word) for word in words]
        ran.append(given)
        rdrop = "label_smoothed_cross_entropy_rdrop" in given
        stopped = "early stop since valid performance hasn't improved for last 5 runs\n"
        if given[0].endswith("fairseq-train"):
            if any(stopped in path.read_text() for path in log.parent.glob("*.log")):
                # Not all that a log holds is UTF-8.
                log.write_bytes(
                    b"\xff\nnothing left to train: 5 validations in a row were not better than 10 "
                    b"(--patience 5)\n"
                )
                return
            with Path(value_of(given, "--log-file")).open("a") as stream:
                first = int(value_of(given, "--max-epoch")) - 1
                for epoch in (first, first + 1):
                    bleu, update = 2 * epoch + rdrop * (epoch - 2), str(10 * epoch)
                    train = {"train_nll_loss": str(9 - epoch), "train_train_wall": "60"}
                    valid = {"valid_bleu": str(bleu), "valid_nll_loss": "3"}
                    for prefix, values in (("train", train), ("valid", valid)):
                        record = {f"{prefix}_num_updates": update, "epoch": epoch} | values
                        stream.write(f"x | INFO | {prefix} | {json.dumps(record)}\n")
            log.write_text(stopped * (rdrop and first == 3))
        else:
            folder = Path(value_of(given, "--output"))
            folder.mkdir(exist_ok=True)
            text = reference.read_text() if "a5" in str(folder) else "one two\nfive six\n"
            (folder / "hypotheses.detok").write_text(text)
            scores = {"scores": [{"name": "BLEU", "score": 7.5}], "reference": str(reference)}
            (folder / "scores.json").write_text(json.dumps(scores))

    monkeypatch.setattr(chain, "call", call)
    return ran


def test_effects_trains_translates_compares_and_goes_on(
    programs: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = [
        "rdrop",
        str(tmp_path),
        "--output",
        str(output),
        "--settings",
        "ls",
        "a5",
        "--seeds",
        "3",
    ]
    assert effects.main([*words, "--max-epoch", "2"]) == 0
    assert [Path(one[0]).name for one in programs] == ["fairseq-train", "admin-nmt"] * 2
    runs = {
        name: json.loads((output / "results.json").read_text())[name]["runs"]["3"]
        for name in ("ls", "a5")
    }
    assert [runs[name]["best_valid_bleu"] for name in runs] == [4, 4]
    assert (
        runs["a5"]["done"] == "2"
        and runs["a5"]["minutes"] == 2
        and runs["a5"]["passes_update"] is None
    )
    assert effects.main([*words, "--max-epoch", "2"]) == 0
    assert len(programs) == 4

    # Longer, one of the two so far: translations of the shorter training are not compared with its own.
    assert effects.main([*words, "--max-epoch", "4", "--settings", "a5"]) == 0
    assert effects.main([*words, "--max-epoch", "4", "--report"]) == 0
    capsys.readouterr()
    for more in ([], ["--report"]):
        assert effects.main([*words, "--max-epoch", "2", *more]) == 1
        assert "a5-3/logs/train-4.log is of a training to epoch 4" in capsys.readouterr().err
    a5 = json.loads((output / "results.json").read_text())["a5"]["runs"]["3"]
    assert a5["test_bleu"] == 7.5 and a5["p"] is None

    # Both: they are translated again, and R-Drop passes the other in epoch 3.
    assert effects.main([*words, "--max-epoch", "4"]) == 0
    assert len(programs) == 8
    table = capsys.readouterr().out
    found = json.loads((output / "results.json").read_text())
    ls, a5 = (found[name]["runs"]["3"] for name in ("ls", "a5"))
    assert ls["done"] == "4" and a5["done"] == "converged"
    for run, option in ((ls, effects.PLAIN), (a5, "--rdrop-alpha 5 --max-epoch 4")):
        assert option in run["command"] and effects.SIZES["rdrop"] in run["command"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", run["date"])
    assert "torch" in found["ls"]["machine"]
    assert (ls["best_valid_bleu"], a5["best_valid_bleu"]) == (8, 10)
    assert (a5["passes_update"], a5["passes_minute"]) == (30, 3)
    assert ls["p"] is None and 0 < a5["p"] <= 1
    assert "| a5 " in table and "7.50" in table
    rows = list(csv.DictReader((output / "results.csv").open()))
    assert [row["setting"] for row in rows] == ["ls", "a5"] and rows[1]["passes_update"] == "30"
    for name in ("BLEU-by-update", "by-minute", "training-loss", "validation-loss"):
        assert (output / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    # One that has stopped early does not go on with a higher --max-epoch.
    def both() -> list[dict[str, Any]]:
        found = json.loads((output / "results.json").read_text())
        return [found[name]["runs"]["3"] for name in ("ls", "a5")]

    assert effects.main([*words, "--max-epoch", "6"]) == 0
    assert [(run["done"], run["updates"]) for run in both()] == [("6", 60), ("converged", 40)]
    longest = both()
    # A report takes the longest training that each has; they are not compared where these differ.
    assert effects.main([*words, "--report"]) == 0
    assert both() == longest and longest[1]["p"] is not None
    assert effects.main([*words, "--max-epoch", "8", "--settings", "ls"]) == 0
    assert effects.main([*words, "--report"]) == 0
    assert [(run["done"], run["test_bleu"]) for run in both()] == [("8", 7.5), ("converged", 7.5)]
    assert both()[1]["p"] is None


def test_passing_is_for_good_as_far_as_a_setting_was_trained() -> None:
    base = ((100, 200, 300, 400, 500), (12.0, 20.0, 28.0, 31.0, 33.0))
    assert effects.crossing(((100, 200, 300), (10.0, 25.0, 30.0)), base) == 200
    assert effects.crossing(((100, 200, 300, 400), (10.0, 25.0, 30.0, 31.0)), base) is None
    assert effects.crossing(base, ((100, 200), (13.0, 30.0))) == 400


def test_no_job_at_a_time_is_refused() -> None:
    with pytest.raises(UsageError, match="--jobs 0"):
        study.call_all([], jobs=0)


CONDUCTOR = """
import admin_nmt_autoload
admin_nmt_autoload.defer_registration = True  # fairseq is not needed
from functools import partial
from pathlib import Path
from studies import study

calls = [partial(study.call, PROGRAM, Path(sys.argv[1], f"{n}.log"), None) for n in (1, 2)]
sys.exit(study.exit_status(lambda args: study.call_all(calls, 2), None))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_programs_end_with_the_one_that_conducts_them(number: int, tmp_path: Path) -> None:
    ended = stopped_alone(CONDUCTOR, number, tmp_path, REPOSITORY)
    assert ended == (130, "interrupted: the same command goes on\n", [])


def test_one_chain_that_fails_leaves_the_others_running(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    (tmp_path / "fail-a").touch()
    chains = {tmp_path / name: [touch(name, lines)] for name in "abc"}
    with pytest.raises(UserError, match="a program failed"):
        chain.run_all(chains, jobs=1)
    assert sorted(lines.read_text().split()) == ["a", "b", "c"]
