"""What the report finds beside the log: scores, samples, omegas, heads."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.cli.main import main
from admin_nmt.errors import UserError
from admin_nmt.evaluation.scoring import Score
from admin_nmt.modules.head_names import Head
from admin_nmt.pruning.records import Measurement, save_measurements, save_removed
from admin_nmt.report import figures, model_state, translations
from admin_nmt.report.runs import Run, read_run, read_runs, result_folders
from admin_nmt.report.translations import Evaluated
from tests.support.report import Page, write_log


def write_evaluation(folder: Path, bleu: float, word: str, sources: bool = True) -> None:
    """What `admin-nmt evaluate` leaves, for 30 sentences."""
    folder.mkdir(parents=True)
    texts = {"hypotheses": word, "references": "ref", "sources": "src"}
    for name, what in texts.items():
        if name != "sources" or sources:
            lines = "".join(f"{what} {number}\n" for number in range(1, 31))
            (folder / f"{name}.detok").write_text(lines)
    scores = [{"name": "BLEU", "score": bleu, "signature": "nrefs:1|v", "detail": ""}]
    (folder / "scores.json").write_text(json.dumps({"scores": scores}))


@pytest.fixture
def save(parse: Callable[..., Any], build: Callable[..., Any]) -> Callable[..., Any]:
    """`save(path, update, *options, as_dict)`: a checkpoint of the tiny model whose omegas are `update`."""

    def write(path: Path, update: int, *options: str, as_dict: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        model = build(*options)
        with torch.no_grad():
            for _, residual in model.residuals():
                if hasattr(residual, "omega"):
                    residual.omega.fill_(float(update))
        state = {
            "args": parse(*options).model, "model": model.state_dict(),
            "optimizer_history": [{"num_updates": update}],
        }  # fmt: skip
        if as_dict:  # as fairseq-hydra-train keeps settings
            state["cfg"] = {"model": vars(state.pop("args"))}
        torch.save(state, path)

    return write


def test_a_page_of_whole_runs(save: Callable[..., Any], tmp_path: Path) -> None:
    for name, bleu in (("a", 30.126), ("b", 31.0)):
        write_log(tmp_path / name / "train.log", 0.1)
        write_evaluation(tmp_path / name / "evaluation", bleu, name)
    save(tmp_path / "a" / "checkpoints" / "checkpoint_1_5.pt", 5)
    save(tmp_path / "a" / "checkpoints" / "checkpoint1.pt", 7)
    save(tmp_path / "a" / "checkpoints" / "checkpoint_last.pt", 9, "--head-mask", "D:2:3")
    output = tmp_path / "r.html"
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(output)]) == 0
    page = Page(output.read_text(encoding="utf-8"))
    assert all(load.startswith("data:") for load in page.loads)
    sections = ["Curves", "Omega", "Attention heads", "Scores", "Sample translations", "Settings"]
    assert page.texts("h2") == sections
    cells = page.texts("td")
    assert cells[:4] == ["evaluation", "30.13", "evaluation", "31.00"]
    assert "BLEU " in page.texts("th") and {"src 1", "ref 1"} <= set(cells)
    assert "nrefs:1|v" in output.read_text()
    titles = page.texts("h3")
    drawn = dict(zip(titles, page.figures(), strict=True))
    assert [(trace["name"], set(trace["y"])) for trace in drawn["Encoder"]["data"]] == [
        ("a update 5", {5}), ("a update 9", {9}),
    ]  # fmt: skip
    (left,) = (figure for title, figure in drawn.items() if title == "a: heads left")
    assert left["data"][2]["z"] == [[1, 1, 1, 1], [1, 1, 0, 1]]
    assert all(value == 1 for trace in left["data"][:2] for row in trace["z"] for value in row)


def test_omegas_stand_in_the_order_of_the_sublayers() -> None:
    names = ["decoder.layers.10.ffn_residual", "decoder.layers.2.ffn_residual"]
    names += [f"decoder.layers.10.{kind}_residual" for kind in ("self_attn", "encoder_attn")]
    found = model_state.omega_profile({n: float(i) for i, n in enumerate(names)} | {"x": 1.0}, 3)
    assert found is not None and found.means == {"decoder": [1, 2, 3, 0]}
    assert found.names["decoder"] == [
        "layer 3 ffn", "layer 11 self_attn", "layer 11 encoder_attn", "layer 11 ffn",
    ]  # fmt: skip
    assert model_state.omega_profile({}, 3) is None


def test_checkpoints_are_taken_by_age(tmp_path: Path) -> None:
    for name in ("_2_30", "3", "_1_10", "1", "_best", "10"):
        (tmp_path / f"checkpoint{name}.pt").touch()
    found = [path.name for path in model_state.first_and_last([tmp_path / "none", tmp_path])]
    assert found == ["checkpoint_1_10.pt", "checkpoint10.pt"]
    (tmp_path / "checkpoint_last.pt").touch()
    found = [path.name for path in model_state.first_and_last([tmp_path])]
    assert found == ["checkpoint_1_10.pt", "checkpoint_last.pt"]


@pytest.mark.parametrize("as_dict", [False, True])
def test_removed_heads_and_whole_models(
    save: Callable[..., Any], tmp_path: Path, as_dict: bool
) -> None:
    save(tmp_path / "whole.pt", 1, as_dict=as_dict)
    save(tmp_path / "pruned.pt", 1, "--heads-per-layer", "E:4,1 A:4,4 D:0,4", as_dict=as_dict)
    assert model_state.kept_map(Checkpoint.open(tmp_path / "whole.pt")) is None
    found = model_state.kept_map(Checkpoint.open(tmp_path / "pruned.pt"))
    assert found is not None and "not which" in found.title
    assert found.values["E"] == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert found.values["D"][0] == [0, 0, 0, 0]


def test_files_about_heads_become_maps(tmp_path: Path) -> None:
    layout = {"E": (2, 1), "D": (2,)}
    save_removed([Head("E", 1, 2)], "c.pt", "f", layout, tmp_path / "removed.json")
    scores = {"E": [[3.0, 4.0], [2.0]], "D": [[0.0, 0.0]]}
    save_measurements([Measurement("c.pt", "f", layout, scores)], tmp_path / "scores.json")
    (tmp_path / "other.json").write_text("{}")
    removed, importance = model_state.document_maps([tmp_path])
    assert removed.values == {"E": [[1, 0], [1]], "D": [[1, 1]]} and removed.is_kept
    assert importance.values == {"E": [[0.6, 0.8], [1]], "D": [[0, 0]]} and not importance.is_kept
    figure = figures.head_figure(importance)
    assert figure["data"][0]["z"] == [[0.6, 0.8], [1, None]]  # two layers, padded to one width
    assert model_state.kinds_of([importance]) == ["E", "D"]
    deep = model_state.HeadMap("x", {"E": [[1.0] * 16] * 30}, is_kept=True)
    for shown, steps in ((importance, (1, 1)), (deep, (2, 3))):
        layout = figures.head_figure(shown)["layout"]
        assert (layout["xaxis"]["dtick"], layout["yaxis"]["dtick"]) == steps
    damaged = json.loads((tmp_path / "removed.json").read_text()) | {"removed": ["E:9:1"]}
    (tmp_path / "removed.json").write_text(json.dumps(damaged))
    with pytest.raises(UserError, match=r"removed\.json is damaged"):
        model_state.document_maps([tmp_path])


def test_scores_of_different_signatures_have_columns_of_their_own() -> None:
    a = Evaluated("x", [Score("BLEU", 30.0, "v1"), Score("TER", 50.0, "t")], None)
    b = Evaluated("y", [Score("BLEU", 31.0, "v2")], None)
    table = translations.score_table([("a", a), ("b", b)])
    assert table.columns == [("BLEU", "v1"), ("TER", "t"), ("BLEU", "v2")]
    assert table.rows == [("a", "x", [30, 50, None]), ("b", "y", [None, None, 31])]


def test_samples_of_one_test_set_stand_together(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_evaluation(tmp_path / name, 30.0, name, sources=name == "two")
    write_evaluation(tmp_path / "other", 30.0, "other", sources=False)
    (tmp_path / "other" / "references.detok").write_text("another\n" * 30)
    found = dict.fromkeys(("one", "two", "other"))
    pairs = [(name, Evaluated(name, [], tmp_path / name)) for name in found]
    shared, alone = translations.sample_sets(pairs, 3)
    assert [sample.number for sample in shared] == [1, 11, 21]
    assert shared[1].source == "src 11" and shared[1].reference == "ref 11"
    assert shared[1].hypotheses == [("one", "one 11"), ("two", "two 11")]
    assert alone[0].source is None and alone[0].hypotheses == [("other", "other 1")]
    (shared,) = translations.sample_sets([("a", pairs[0][1]), ("a", pairs[1][1])], 3)
    assert [name for name, _ in shared[0].hypotheses] == ["a (one)", "a (two)"]
    (tmp_path / "two" / "hypotheses.detok").write_text("short\n")
    with pytest.raises(UserError, match=r"hypotheses\.detok has 1 lines, references\.detok 30"):
        translations.sample_sets(pairs)
    assert translations.spread(2, 5) == [0, 1] and translations.spread(0, 5) == []


def test_results_lie_in_the_runs_folder_or_the_logs_save_dir(tmp_path: Path) -> None:
    home = tmp_path / "run"
    write_log(home / "train.log", 0.1)
    write_evaluation(home / "checkpoints" / "checkpoint_best.test.de-en", 20.0, "x")
    write_evaluation(home / "evaluation", 21.0, "x")
    assert {found.name for found in read_run(home, "r").evaluations} == {
        "evaluation", "checkpoint_best.test.de-en",
    }  # fmt: skip
    assert result_folders(home)[:2] == [home, home / "checkpoints"]
    log = tmp_path / "a.log"
    settings = f"Namespace(save_dir={str(home / 'checkpoints')!r})\n"
    log.write_text(settings + (home / "train.log").read_text().split("\n", 1)[1])
    assert len(read_run(log, "a").evaluations) == 2
    log.write_text(log.read_text().replace("checkpoints", "gone"))
    assert read_run(log, "a").evaluations == []
    (home / "evaluation" / "scores.json").write_text('{"scores": [{"name": "BLEU"}]}')
    with pytest.raises(UserError, match=r"was not written by 'admin-nmt evaluate'"):
        read_run(home, "r")


def test_the_save_dir_beside_a_log_comes_before_one_of_the_same_name_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = Path("a") / "train.log"
    write_log(log, 0.1)
    _, progress = log.read_text().split("\n", 1)
    log.write_text("Namespace(save_dir='checkpoints')\n" + progress)
    write_evaluation(Path("checkpoints") / "another-training", 20.0, "x")
    assert [found.name for found in read_run(log, "a").evaluations] == ["another-training"]
    write_evaluation(Path("a") / "checkpoints" / "its-own", 21.0, "x")
    assert [found.name for found in read_run(log, "a").evaluations] == ["its-own"]


def test_checkpoints_may_be_a_link_to_another_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies beside the link's target is of others."""
    home, disk = tmp_path / "runs" / "a", tmp_path / "scratch"
    write_log(home / "train.log", 0.1)
    log = (home / "train.log").read_text().split("\n", 1)[1]
    (home / "train.log").write_text("Namespace(save_dir='checkpoints')\n" + log)
    write_evaluation(home / "scores", 20.0, "x")
    write_evaluation(disk / "of-another-run", 21.0, "x")
    (disk / "checkpoints").mkdir()
    (home / "checkpoints").symlink_to(disk / "checkpoints")
    monkeypatch.chdir(tmp_path)
    for given in ("runs/a", "runs/a/train.log", "runs/a/checkpoints", "runs/a/checkpoints/"):
        (run,) = read_runs([given])
        assert [found.name for found in run.evaluations] == ["scores"]
        assert run.label == "a"
    monkeypatch.chdir(home)
    for given in (".", "checkpoints"):
        (run,) = read_runs([given])
        assert ([found.name for found in run.evaluations], run.label) == (["scores"], "a")


def test_an_unreadable_checkpoint_does_not_cost_the_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_log(tmp_path / "train.log", 0.1)
    (tmp_path / "checkpoint_last.pt").write_bytes(b"no checkpoint")
    with caplog.at_level(logging.WARNING):
        run = read_run(tmp_path, "r")
    assert run.omegas == [] and "checkpoint_last.pt is passed over" in caplog.text


def test_a_log_may_be_named_like_a_result_file(tmp_path: Path) -> None:
    """`--log-format json --log-file train.json`; a result file that is cut off is not taken for one."""
    write_log(tmp_path / "train.log", 0.1)
    run = read_run(tmp_path / "train.log", "x")
    log = (tmp_path / "train.log").rename(tmp_path / "train.json")
    assert read_run(log, "x").curves == run.curves and read_run(log, "x").settings == run.settings
    log.write_text('{"train_ppl": {"updates": [1],')
    with pytest.raises(UserError, match=r"train\.json is not valid JSON"):
        read_run(log, "x")


def test_results_of_a_study_have_omegas_and_scores(tmp_path: Path) -> None:
    content = {
        "train_ppl": {"updates": [1], "values": [9.0]}, "seed": 1,
        "omegas": {"1": {"encoder.layers.0.ffn_residual": [2.0, 0.1]},
                   "8": {"encoder.layers.0.ffn_residual": [3.0, 0.1]}},
        "test": {"BLEU": {"score": 12.5, "signature": "s"}},
    }  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps(content))
    run: Run = read_run(tmp_path / "x.json", "x")
    assert [(p.update, p.means) for p in run.omegas] == [
        (1, {"encoder": [2.0]}), (8, {"encoder": [3.0]}),
    ]  # fmt: skip
    assert run.evaluations == [Evaluated("test", [Score("BLEU", 12.5, "s")], None)]
    figure = figures.omega_figure("encoder", [run])
    assert figure is not None
    assert [trace["line"]["dash"] for trace in figure["data"]] == ["dot", "solid"]
    assert figures.omega_figure("decoder", [run]) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"test": {"BLEU": 3}},
        {"test": [1]},
        {"x": {"updates": 1, "values": 2}},
        {"omegas": {"a": {}}},
    ],
)
def test_a_result_file_of_another_form_is_damaged(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"train_ppl": {"updates": [1], "values": [9.0]}} | damage))
    with pytest.raises(UserError, match=r"x\.json is damaged: "):
        read_run(path, "x")
