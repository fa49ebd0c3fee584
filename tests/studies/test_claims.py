"""Figures of the results' front page and of README are those of the data files."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from admin_nmt.errors import UserError
from admin_nmt.json_files import read_json
from studies import claims, schedule_map

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return yaml.safe_load((claims.RESULTS / "claims.yaml").read_text(encoding="utf-8"))


def test_the_front_page_and_readme_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert claims.main(["--check"]) == 0, capsys.readouterr().err


def test_readme_quotes_no_other_figure(document: dict[str, Any]) -> None:
    """Every number with a decimal point outside commands and links is one of the phrases'."""
    values = claims.figures(document)
    text = re.sub(r"```.*?```|`[^`]*`|\[[^\]]*\]\([^)]*\)", "", README, flags=re.S)
    for phrase in document["readme"]:
        text = text.replace(claims.filled(phrase, values), "")
    found = re.findall(r"\d+\.\d+\S*|\d+e-\d+", text)
    assert set(found) <= {"5e-15", "3.11", "3.12", "1.6"}, found


def test_every_figure_and_page_is_used_and_there(document: dict[str, Any]) -> None:
    templates = [claim["ours"] for claim in document["claims"]] + document["readme"]
    used = {name for text in templates for name in re.findall(r"\{(\w+)", text)}
    assert used == set(document["figures"]) - {"int8_bleu", "post_ln_share"}
    for claim in document["claims"]:
        assert (claims.RESULTS / claim["page"]).is_file()


def test_every_data_file_is_named_on_a_page() -> None:
    pages = "\n".join(p.read_text(encoding="utf-8") for p in claims.RESULTS.glob("*.md"))
    for path in claims.RESULTS.iterdir():
        if path.suffix in (".csv", ".json", ".png") or path.is_dir():
            assert f"({path.name})" in pages, f"{path.name}: no page of docs/results names it"


def test_the_map_of_schedules_on_its_page_is_that_of_the_runs() -> None:
    text = (claims.RESULTS / "deep-training.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ([\w-]+) \| (\S+), ([\d,]+) \| ([\d.]+) \| (.+) \|$", text, flags=re.M)
    folder = claims.RESULTS / "schedule-map"
    runs = [read_json(path) for path in folder.glob("*.json")]
    shares = {
        (run["init_type"], run["lr"], run["warmup_updates"]): run["position_share"] for run in runs
    }
    rows = claims.read_rows(folder / "map.csv")
    assert len(rows) == len(table) == len(shares)
    assert len(rows) == len(schedule_map.RUNS)
    for row, (init_type, rate, warm_up, perplexity, said) in zip(rows, table, strict=True):
        run = init_type, float(rate), int(warm_up.replace(",", ""))
        assert run == (row["init_type"], float(row["lr"]), int(row["warmup_updates"]))
        assert float(perplexity) == float(row["train_ppl"])
        found = [shares[run][update] for update in ("1", "500", "1000", "2000")]
        assert [float(share) for share in said.split(", ")] == [
            pytest.approx(share, abs=5.1e-4 if share >= 0.001 else share / 2, rel=0)
            for share in found
        ]


def page(name: str) -> str:
    """A page of docs, each run of white space one space."""
    return " ".join((REPOSITORY / "docs" / name).read_text(encoding="utf-8").split())


def test_pages_say_when_r_drop_passes_label_smoothing_and_how_long_its_updates_take() -> None:
    rows = claims.read_rows(claims.RESULTS / "r-drop.csv")
    epochs, seconds = {}, {}
    (per_epoch,) = re.findall(r"every second epoch of (\d+) updates", page("results/r-drop.md"))
    for row in rows:
        setting, seed = row["setting"], row["seed"]
        if row["passes_ls_at_update"]:
            epochs[setting, seed] = int(row["passes_ls_at_update"]) // int(per_epoch)
        seconds[setting, seed] = 60 * float(row["minutes"]) / int(row["best_at_update"])
    for name in ("results/r-drop.md", "methods/r-drop.md"):
        said = re.search(
            r"alpha 1 (?:is|was) ahead for good from epoch (\d+), "
            r"alpha 3 from epoch (\d+) or (\d+), alpha 5 from epoch (\d+) or (\d+)",
            page(name),
        )
        assert said, name
        alpha_1, *others = map(int, said.groups())
        assert {alpha_1} == {epochs["a1", seed] for seed in "12"}
        for setting, pair in (("a3", others[:2]), ("a5", others[2:])):
            assert sorted(pair) == sorted(epochs[setting, seed] for seed in "12"), name
    ratios = [
        seconds[setting, seed] / seconds["ls", seed]
        for setting in ("a1", "a3", "a5")
        for seed in "12"
    ]
    steps = claims.read_rows(claims.RESULTS / "r-drop-steps.csv")
    ours = [float(row["all_ours_s"]) for row in steps]
    gpu = claims.read_rows(claims.RESULTS / "gpu-speed.csv")
    ms = {
        (row["loss"], row["variant"]): float(row["ms"])
        for row in gpu
        if row["batches"] == "all shapes"
    }
    h200 = [ms["R-Drop", name] / ms["smoothing", name] for name in ("ours", "ours, fused norm")]
    for name in ("results/r-drop.md", "methods/r-drop.md"):
        for phrase in (
            f"{min(ratios):.1f} to {max(ratios):.1f} times as long",
            f"{ours[1] / ours[0]:.1f} and {ours[3] / ours[2]:.1f} times",
            f"{h200[0]:.1f} to {h200[1]:.1f} times on an H200",
        ):
            assert phrase in page(name), (name, phrase)


def test_a_figure_is_looked_up_reduced_and_compared(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("setting,seed,bleu\nx,1,10.5\nx,2,11.5\ny,1,9\n")
    figure: dict[str, Any] = {"file": "a.csv", "column": "bleu", "where": {"setting": "x"}}
    assert claims.look_up(figure, tmp_path) == 11.0
    assert claims.look_up(figure | {"take": "max"}, tmp_path) == 11.5
    assert claims.look_up(figure | {"minus": {"setting": "y"}}, tmp_path) == 2.0
    divided = figure | {"over": {"seed": 1.0, "setting": "x"}}
    assert claims.look_up(divided, tmp_path) == Decimal(11) / Decimal("10.5")
    assert claims.look_up(figure | {"where": {"seed": 1.0, "setting": "y"}}, tmp_path) == 9.0
    assert claims.filled("{x:.1f}", {"x": Decimal("10.25")}) == "10.3"
    with pytest.raises(UserError, match=r"a\.csv: no row with"):
        claims.look_up(figure | {"where": {"setting": "z"}}, tmp_path)
    with pytest.raises(UserError, match="no column 'score'"):
        claims.look_up(figure | {"column": "score"}, tmp_path)


def test_a_changed_figure_is_noticed(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    values = claims.figures(document)
    assert not claims.missing_from(README, document, values)
    values["admin_seed_1"] += Decimal("0.01")
    assert len(claims.missing_from(README, document, values)) == 1
    monkeypatch.setattr(claims, "figures", lambda _: values)
    assert claims.main(["--check"]) == 1
    assert "README.md lacks: | ADMIN | **87.33**" in capsys.readouterr().err
