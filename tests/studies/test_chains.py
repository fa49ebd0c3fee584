"""Chains of programs (compose, heads, reproduce): run once, resumed, recorded; their small parts."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.errors import UserError
from studies import chain, compose, heads, reproduce, study
from studies.chain import step

REPOSITORY = Path(__file__).parents[2]
SIZE_OF = {"compose": compose.SIZES, "heads": heads.SIZES}


def touch(name: str, path: Path, fail: bool = False) -> chain.Step:
    """A step that adds a line to `path`, and fails if it shall."""
    program = f"open({str(path)!r}, 'a').write('{name}\\n'); raise SystemExit({int(fail)})"
    return step(name, "python", "-c", program)


def test_a_chain_runs_each_step_once_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    lines, folder = tmp_path / "lines", tmp_path / "chain"
    with pytest.raises(UserError, match=r"a program failed, see .*logs/b\.log"):
        chain.run([touch("a", lines), touch("b", lines, True), touch("c", lines)], folder)
    assert chain.done(folder, "b") is None
    steps = [touch(name, lines) for name in "abc"]
    chain.run(steps, folder)
    chain.run(steps, folder)
    assert lines.read_text().split() == ["a", "b", "b", "c"]
    recorded = (folder / "commands.sh").read_text().splitlines()
    assert [shlex.split(line) for line in recorded] == [list(one.command) for one in steps]
    ended = chain.done(folder, "c")
    assert ended is not None and ended["seconds"] > 0


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

    parsed = study.parser("", "x").parse_args(depth_words[3:])
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
    assert compose.main([str(tmp_path), "--output", str(tmp_path / "o")]) == 1
    assert "no preparation.json" in capsys.readouterr().err


def test_effects_is_given_settings_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studies import effects

    args = reproduce.parse_arguments(["rdrop", "--corpus", str(tmp_path), "--size", "medium"])
    for name in ("rdrop", "realformer"):
        words = reproduce.studies_of(name, args, tmp_path, tmp_path)[0].command
        monkeypatch.setattr(sys, "argv", list(words[2:]))
        assert effects.parse_arguments().study == name
