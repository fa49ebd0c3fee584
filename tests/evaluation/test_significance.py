"""Contracts: paired tests equal sacreBLEU's command line for the same seed."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from admin_nmt.cli import compare
from admin_nmt.cli.main import main
from admin_nmt.errors import UsageError
from admin_nmt.evaluation.significance import compare_systems
from tests.support.programs import BIN, run_program

SEED = "77"


def sacrebleu_paired(references, systems, test, num_samples):
    """{(file, metric): [score, mean, ci, p]} as far as sacreBLEU prints them."""
    # Its JSON output fails on NumPy 2 (float32 is not serialisable), so read its LaTeX table.
    command = [BIN / "sacrebleu", *references, "-i", *systems, "-m", "bleu", "chrf", "ter"]
    command += [f"--paired-{test}", f"--paired-{test}-n", num_samples, "-f", "latex", "-w", "8"]
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True,
        env=os.environ | {"SACREBLEU_SEED": SEED, "NO_COLOR": "1"},
    )  # fmt: skip
    found = {}
    for line in result.stdout.splitlines():
        if ".txt" in line and "&" in line:
            name, *cells = line.split("&")
            for metric, cell in zip(("BLEU", "chrF2", "TER"), cells, strict=True):
                numbers = [float(number) for number in re.findall(r"\d+\.\d+", cell)]
                found[Path(name.split()[-1]).name, metric] = numbers
    return found


def test_compare_command_equals_the_sacrebleu_command(text_files, two_references, tmp_path):
    """With two references, which must both count."""
    systems, references = text_files[:2], two_references
    bootstrap = sacrebleu_paired(references, systems, "bs", 100)
    randomisation = sacrebleu_paired(references, systems, "ar", 200)
    command = ["compare", *systems, "--seed", SEED]
    command += [word for reference in references for word in ("--reference", reference)]
    command += ["--paired-bs-n", "100", "--paired-ar-n", "200", "--json", tmp_path / "out.json"]
    ours = run_program("admin-nmt", *command)
    result = json.loads((tmp_path / "out.json").read_text())
    assert [result["reference"], *result["more_references"]] == list(map(str, references))
    assert len(result["results"]) == len(bootstrap) == len(randomisation) == 6
    for row in result["results"]:
        key = Path(row["system"]).name, row["metric"]
        ours_row = [row["score"], row["mean"], row["ci"], row["p_bootstrap"]]
        assert bootstrap[key] == pytest.approx([x for x in ours_row if x is not None], abs=5e-5)
        ours_row = [row["score"], row["p_randomisation"]]
        assert randomisation[key] == pytest.approx([x for x in ours_row if x is not None], abs=5e-5)
        assert f"{row['score']:.2f}" in ours.stdout
    assert f"seed:{SEED}" in result["signatures"]["BLEU"]["paired_bootstrap"]
    assert "nrefs:2|" in result["signatures"]["chrF2"]["approximate_randomisation"]
    assert [row["p_bootstrap"] is None for row in result["results"]] == [True, False] * 3


def test_chrf_with_words_is_a_measure_of_its_own():
    systems = {"a": ["one two three", "four five"], "b": ["one two tree", "four fife"]}
    few = {"num_bootstrap": 5, "num_randomisation": 5}
    found = compare_systems(systems, systems["a"], metrics=["chrf", "chrf++"], **few)
    scores = {(row.metric, row.system): row.score for row in found.results}
    assert scores["chrF2", "a"] == scores["chrF2++", "a"] == 100
    assert scores["chrF2", "b"] > scores["chrF2++", "b"] and "nw:2" in str(found.signatures)


def test_a_system_against_its_copy_is_no_difference_and_against_noise_is_one():
    references = [f"sentence {i} has its own words {i * 7} {i * 13} here ." for i in range(60)]
    noise = ["nothing of this is right at all"] * 60
    systems = {"base": references, "copy": references, "noise": noise}
    rows = compare_systems(
        systems, references, metrics=["bleu"], num_bootstrap=100, num_randomisation=100
    ).results
    base, copy, bad = rows
    assert base.difference == copy.difference == 0.0 and bad.difference < -90
    assert copy.p_bootstrap == copy.p_randomisation == 1.0
    assert bad.p_bootstrap < 0.05 and bad.p_randomisation < 0.05


@pytest.mark.parametrize(
    ("metric", "other", "options"),
    [
        ("ter", "A Dog Runs In Park today .", {}),
        ("bleu", "A Dog Runs In Park today .", {"lowercase": True}),
        ("chrf", "a dog runs in  parkto day .", {}),
        ("bleu", "x y", {}),
    ],
)
def test_systems_with_one_score_do_not_differ(metric, other, options):
    """The measure does not see case or white space, or both systems have BLEU 0."""
    references = [f"a dog runs in the park today {number} ." for number in range(20)]
    first = ["z z z" if other == "x y" else "a dog runs in park today ."] * 20
    systems = {"base": first, "other": [other] * 20}
    _, row = compare_systems(
        systems, references, metrics=[metric], num_bootstrap=50, num_randomisation=50, **options
    ).results
    assert row.difference == 0 and row.p_bootstrap == row.p_randomisation == 1.0


def test_the_seed_decides_and_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "1")
    references = [f"a b c d e f {i}" for i in range(30)]
    systems = {
        "a": [f"a b c d x f {i % 9}" for i in range(30)],
        "b": [f"a b c d e f {i % 5}" for i in range(30)],
    }

    def means(seed):
        result = compare_systems(
            systems, references, metrics=["chrf"], num_bootstrap=20, num_randomisation=20, seed=seed
        )
        return [row.mean for row in result.results]

    assert means(3) == means(3) != means(4)
    assert os.environ["SACREBLEU_SEED"] == "1"
    monkeypatch.delenv("SACREBLEU_SEED")
    means(3)
    assert "SACREBLEU_SEED" not in os.environ


def test_case_and_tokenisation_are_those_asked_for():
    systems = {"a": ["One two three-four five."] * 3, "b": ["one two three-four five ."] * 3}
    few = {"num_bootstrap": 5, "num_randomisation": 5}

    def difference(**options):
        found = compare_systems(systems, systems["b"], metrics=["bleu"], **few, **options)
        return found.results[1].difference

    assert difference() > 0 and difference(tokenize="none", lowercase=True) > 0
    assert difference(lowercase=True) == 0


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--paired-bs-n 0", {"num_bootstrap": 0}),
        ("--paired-ar-n -1", {"num_randomisation": -1}),
        ("--seed 0", {"seed": 0}),
    ],
)
def test_numbers_below_one_are_refused(option, arguments):
    with pytest.raises(UsageError, match=option):
        compare_systems({"a": ["x"], "b": ["y"]}, ["x"], **arguments)


@pytest.mark.parametrize(
    ("systems", "message"), [(["a"], "at least two"), (["a", "b", "a"], "a is given more than")]
)
def test_one_system_or_the_same_twice_is_refused(systems, message):
    import argparse

    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    with pytest.raises(UsageError, match=message):
        compare.run(parser.parse_args([*systems, "--reference", "r"]))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/x.json", "--json nowhere/x.json: there is no folder nowhere"),
        (".", "is a folder"),
        ("a", "--json a is an input"),
    ],
)
def test_results_that_could_not_be_written_are_refused_before_any_test(
    output, message, tmp_path, monkeypatch, capsys
):
    """The systems are not there: nothing has been read."""
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "a", "b", "--reference", "r", "--json", output]) == 2
    assert message in capsys.readouterr().err
