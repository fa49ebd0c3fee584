"""Studies: what they train parses, a run is kept, resumed and not repeated, reports draw."""

import argparse
import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.errors import UserError
from admin_nmt.programs import OutOfTimeError
from studies import depth, large_batch, schedule_map, study
from studies.measures import fingerprint, raw_texts
from studies.study import Run

STUDIES = {"depth": depth, "large_batch": large_batch, "schedule_map": schedule_map}
TINY = (
    "--cpu --arch admin_transformer_tiny --share-all-embeddings --optimizer radam --lr 1e-3 "
    "--lr-scheduler inverse_sqrt --warmup-updates 2 --label-smoothing 0.1 --max-tokens 300 "
    "--criterion admin_label_smoothed_cross_entropy"
)


def arguments(folder: Path, data: Path, **changed: Any) -> argparse.Namespace:
    """As `study.parser` makes them."""
    given = {
        "data": data, "work": folder / "work", "results": folder / "results", "only": None,
        "jobs": 1, "minutes": None, "report": False, "device": "cpu",
    }  # fmt: skip
    return argparse.Namespace(**(given | changed))


@pytest.mark.parametrize("name", STUDIES)
def test_every_run_is_a_command_that_fairseq_understands(name: str, data_bin: Path) -> None:
    from fairseq import options

    import admin_nmt  # noqa: F401

    runs = STUDIES[name].RUNS
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        command = study.command(run, data_bin, Path(run.name), run.updates)
        args = options.parse_args_and_arch(options.get_training_parser(), command[1:])
        assert args.max_update == run.updates
        assert run.updates % run.probe_every == 0  # so that the last update has a checkpoint
        for label, value in run.labels.items():
            parsed = getattr(args, label, None)
            if parsed is not None:
                assert value in (parsed, *(parsed if isinstance(parsed, list) else ())), label


@pytest.mark.long
def test_a_run_is_trained_once_looked_at_and_translated(data_bin: Path, tmp_path: Path) -> None:
    run = Run("tiny", TINY, updates=4, probe_every=2, translate=True, average=2, labels={"x": 7})
    args = arguments(tmp_path, data_bin)
    study.conduct([run], args)
    found = json.loads((tmp_path / "results" / "tiny.json").read_text())
    assert found["x"] == 7 and list(found["position_share"]) == ["1", "2", "4"]
    assert all(0 <= share <= 1 for share in found["position_share"].values())
    for norms in found["gradient_norms"].values():
        assert set(norms) == {f"{s}.{layer}" for s in ("encoder", "decoder") for layer in (0, 1)}
        assert all(norm > 0 for norm in norms.values())
    assert len(found["omegas"]["4"]) == 8 and found["test"]["BLEU"]["signature"].startswith("nrefs")
    assert len((tmp_path / "results" / "tiny.hyp").read_text().splitlines()) == 20
    assert shlex.split(found["command"])[0] == "DATA" and str(tmp_path) not in found["command"]
    assert not (tmp_path / "work" / "tiny" / "checkpoints").exists()
    log = (tmp_path / "work" / "tiny" / "train.log").read_text()
    study.conduct([run], args)
    assert (tmp_path / "work" / "tiny" / "train.log").read_text() == log
    assert study.results(args, [run]) == [found]


#: In place of `fairseq-train`: too slow the first time, then it writes the checkpoints asked for.
TRAINING = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        --max-update) last=$2 ;;
        --save-interval-updates) every=$2 ;;
        --save-dir) folder=$2 ;;
    esac
    shift
done
echo "$last" >> "$0.calls"
[ "$(wc -l < "$0.calls")" -gt 1 ] || exec sleep 60
mkdir -p "$folder"
for update in $(seq "$every" "$every" "$last"); do touch "$folder/checkpoint_1_$update.pt"; done
"""


def test_a_run_stops_when_time_is_over_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "fairseq-train"
    stub.write_text(TRAINING)
    stub.chmod(0o755)
    monkeypatch.setattr(study, "BIN", tmp_path)
    run = Run("tiny", TINY, updates=6, probe_every=2)
    folder = tmp_path / "work" / "tiny"
    (tmp_path / "dict.en.txt").write_text("a 1\n")
    start = time.monotonic()
    with pytest.raises(OutOfTimeError):
        study.train(run, tmp_path, folder, start)
    assert time.monotonic() - start < 30
    spent = study.train(run, tmp_path, folder, None)
    assert list(study.checkpoints(folder)) == [1, 2, 4, 6]
    again = study.train(run, tmp_path, folder, None)
    assert again == spent > 1
    assert (tmp_path / "fairseq-train.calls").read_text().split() == ["1", "1", "6"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What `admin-nmt prepare` leaves about the test set."""
    folder = tmp_path / "data"
    (folder / "raw").mkdir(parents=True)
    raw = {language: f"raw/test.{language}" for language in ("en", "de")}
    for language, name in raw.items():
        (folder / name).write_text(f"{language}\n")
        (folder / f"dict.{language}.txt").write_text("a 1\n")
    preparation = {"source_lang": "en", "target_lang": "de", "raw": {"test": raw}}
    (folder / "preparation.json").write_text(json.dumps(preparation))
    return folder


def test_the_fingerprint_is_that_of_dictionaries_and_test_set(data: Path) -> None:
    found = {fingerprint(data)}
    for name in ("dict.de.txt", "raw/test.en"):
        (data / name).write_text("b 2\n")
        found.add(fingerprint(data))
    assert len(found) == 3
    (data / "train.en-de.en.log").write_text("x")
    assert fingerprint(data) in found
    (data / "preparation.json").unlink()  # of fairseq-preprocess
    assert len(fingerprint(data)) == 64
    with pytest.raises(UserError, match=r"no dict\.\*\.txt; give a data-bin"):
        fingerprint(data / "raw")


def test_results_of_other_training_data_are_refused(data: Path, tmp_path: Path) -> None:
    """With the same dictionaries and test set; results of earlier versions do not say."""
    (data / "train.en-de.en.bin").write_bytes(b"1")
    wanted = study.data_origin(data)
    assert study.data_origin(data) == wanted
    (data / "train.en-de.en.bin").write_bytes(b"2")
    now = study.data_origin(data)
    assert now["data"] == wanted["data"]
    with pytest.raises(UserError, match="differs from this run in its training data: give another"):
        study.require_own(now, tmp_path / "x.json", wanted, "--results")
    study.require_own({"data": now["data"]}, tmp_path / "x.json", wanted, "--results")


def test_data_without_a_test_set_are_one_line(data: Path) -> None:
    assert raw_texts(data) == (data / "raw" / "test.en", data / "raw" / "test.de")
    for content in ({"source_lang": "en", "target_lang": "de"}, {"raw": {"test": {"en": "x"}}}):
        (data / "preparation.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"preparation\.json names no raw text of a test set"):
            raw_texts(data)
    (data / "preparation.json").write_text('{"raw": [1]}')
    with pytest.raises(UserError, match="does not have the form"):
        raw_texts(data)


def test_results_of_another_command_or_of_other_data_are_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is trained; those that do not say of which data they are, too."""
    monkeypatch.setattr(study, "train", lambda *_: pytest.fail("trained"))
    run, other = (Run(name, TINY, updates=4, probe_every=2) for name in ("tiny", "other"))
    args = arguments(tmp_path, data, only=["other"])
    args.results.mkdir()
    path = args.results / "tiny.json"
    own = study.origin(run, data, "cpu")
    for changed, reason in (
        ({"data": "0" * 64}, "differs from this run in its data"),
        ({"command": f"{own['command']} --bf16"}, "differs from this run in its command"),
        ({"command": own["command"].replace(" --cpu", "")}, "differs from this run in its command"),
    ):
        path.write_text(json.dumps(own | changed))
        with pytest.raises(UserError, match=rf"tiny\.json {reason}: give another --results$"):
            study.conduct([run, other], args)
    path.write_text(json.dumps({"command": own["command"]}))  # as committed in November 2026
    with pytest.raises(UserError, match=r"tiny\.json does not say of which data it is"):
        study.conduct([run, other], args)
    assert study.results(args, [run, other]) == [{"command": own["command"]}]  # by --report
    path.write_text(json.dumps(own | {"data": "0" * 64}))
    with pytest.raises(UserError, match="differs from this run in its data"):
        study.results(args, [run, other])


def test_a_training_of_other_data_is_not_gone_on_with(data: Path, tmp_path: Path) -> None:
    run = Run("tiny", TINY, updates=4, probe_every=2)
    folder = tmp_path / "work" / "tiny"
    folder.mkdir(parents=True)
    own = study.origin(run, data, "cpu")
    for mark in (own | {"data": "0" * 64}, own | {"command": "x"}, {}):
        (folder / "trained.json").write_text(json.dumps({"updates": 1, "seconds": 1.0} | mark))
        with pytest.raises(UserError, match=r"trained\.json .*: give another --work$"):
            study.train(run, data, folder, None)
    assert not (folder / "train.log").exists()


def test_checkpoints_of_a_process_that_was_killed_after_its_result_are_removed(
    data: Path, tmp_path: Path
) -> None:
    run = Run("tiny", TINY, updates=4, probe_every=2)
    args, own = arguments(tmp_path, data), study.origin(run, data, "cpu")
    folder = args.work / run.name
    (folder / "checkpoints").mkdir(parents=True)
    args.results.mkdir()
    (args.results / "tiny.json").write_text(json.dumps(own))
    (folder / "trained.json").write_text(json.dumps({"updates": 4, "seconds": 1.0} | own))
    study.conduct([run], args)
    assert not (folder / "checkpoints").exists()
    study.conduct([run], args)


def test_results_lie_beside_the_checkpoints_unless_a_folder_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(study, "conduct", lambda runs, args: found.append(args.results))
    monkeypatch.chdir(tmp_path)
    for words in ([], ["--results", "kept"]):
        monkeypatch.setattr("sys.argv", ["x", "data", "--work", "w", *words])
        assert study.main("x", schedule_map.RUNS, schedule_map.report) == 1  # none is there
    assert found == [tmp_path / "w" / "results", tmp_path / "kept"]


def test_failures_name_the_log_and_unknown_runs_are_refused(data_bin: Path, tmp_path: Path) -> None:
    run = Run("bad", f"{TINY} --encoder-attention-heads 5", updates=2)
    with pytest.raises(UserError, match=r"see .*bad/train\.log"):
        study.conduct([run], arguments(tmp_path, data_bin))
    assert not (tmp_path / "results" / "bad.json").exists()
    with pytest.raises(UserError, match="--only worse: no such run"):
        study.conduct([run], arguments(tmp_path, data_bin, only=["worse"]))


def fake_result(run: Run, loss: float) -> dict[str, Any]:
    """A result as `study.complete` keeps it."""
    updates = [50, 100, run.updates]
    curve = {"updates": updates, "values": [9.0, 8.0, loss]}
    norms = {f"encoder.{i}": 1.0 + i for i in range(3)}
    return {
        "name": run.name, **run.labels, "seed": run.seed, "updates": run.updates,
        "date": "2026-01-01", "machine": "a CPU", "train_ppl": curve, "train_nll_loss": curve,
        "valid_nll_loss": curve, "position_share": {"1": 0.5, "1000": 0.4, "2000": 0.3, "3000": 0.3, str(run.updates): 0.25},
        "gradient_norms": {"1": norms, "1000": norms, str(run.updates): norms},
        "omegas": {"1": {"encoder.layers.0.ffn_residual": [2.0, 0.0]}, "9": {}},
        "test": {"BLEU": {"score": 10 - loss}, "chrF2": {"score": 20 - loss}},
    }  # fmt: skip


def test_depth_shows_each_scheme_at_its_better_rate(data: Path, tmp_path: Path) -> None:
    """Tested against the target side, whatever its language."""
    for language, text in (
        ("en", "ein Hund .\neine Katze .\n"),
        ("de", "a dog runs .\na cat sleeps .\n"),
    ):
        (data / "raw" / f"test.{language}").write_text(text * 5)
    args = arguments(tmp_path, data, results=tmp_path)
    found = []
    other = [depth.run_of(scheme, "60L-12L", depth.RATES[1], 2) for scheme in ("admin", "post-ln")]
    for run in [*depth.RUNS, *other]:
        if run.labels["depth"] == "60L-12L" and run.labels["scheme"] in ("admin", "post-ln"):
            better = run.labels["lr"] == float(depth.RATES[1])
            loss = (3.0 if run.labels["scheme"] == "admin" else 5.0) - better
            found.append(fake_result(run, float("nan") if loss == 5.0 else loss))
            text = "a dog runs .\na cat sleeps .\n" if loss == 2.0 else "a a\nthe the\n"
            (tmp_path / f"{run.name}.hyp").write_text(text * 5)
    depth.report(args, found)
    rows = (tmp_path / "depth.csv").read_text().splitlines()
    assert len(rows) == 1 + 4  # two schemes, two seeds
    header, *cells = [row.split(",") for row in rows]
    table = {(c[1], c[2]): dict(zip(header, c, strict=True)) for c in cells}
    assert {c["lr"] for c in table.values()} == {str(float(depth.RATES[1]))}
    assert float(table["admin", "1"]["p against post-ln"]) < 0.01
    assert table["post-ln", "1"]["p against post-ln"] == ""
    admin = table["admin", "1"]
    assert [admin[f"share at {update}"] for update in (1, 4000)] == ["0.5", "0.25"]
    assert admin["other lr"] == str(float(depth.RATES[0]))
    assert (float(admin["BLEU"]), float(admin["other BLEU"])) == (8.0, 7.0)
    for name in ("validation-loss", "share", "gradient-start", "gradient-later", "omega"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_depth_without_first_seeds_is_one_line(tmp_path: Path) -> None:
    second = next(run for run in depth.RUNS if run.seed == 2)
    with pytest.raises(UserError, match="no result with seed 1"):
        depth.report(arguments(tmp_path, tmp_path, results=tmp_path), [fake_result(second, 2.0)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["schedule_map", "large_batch"])
def test_reports_of_unfinished_studies(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = STUDIES[name]
    args = arguments(tmp_path, tmp_path, results=tmp_path)
    module.report(args, [fake_result(run, 2.0) for run in module.RUNS[:3]])
    (table,) = tmp_path.glob("*.csv")
    assert len(table.read_text().splitlines()) == 4
    assert list(tmp_path.glob("*.png"))
    assert re.search(r"\| *admin ", capsys.readouterr().out)


def test_the_command_line_says_when_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--work", "w", "--report", "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path), *options])
    assert study.main("x", schedule_map.RUNS, schedule_map.report) == 1
    assert capsys.readouterr().err == f"error: no results in {tmp_path} yet\n"
