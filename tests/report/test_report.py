"""`admin-nmt report`: what is on the page, that it loads nothing, that a browser draws it."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from admin_nmt.analysis.training_log import Curve
from admin_nmt.cli.main import main
from admin_nmt.report import figures
from admin_nmt.report.page import embedded
from admin_nmt.report.runs import Run, compare_settings, read_run, read_runs
from tests.support.report import Page, write_log


@pytest.fixture
def page(tmp_path: Path) -> Page:
    write_log(tmp_path / "a" / "train.log", 0.1)
    write_log(tmp_path / "b" / "logs.log", 0.2)
    output = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(output)]) == 0
    return Page(output.read_text(encoding="utf-8"))


def test_the_page_loads_nothing(page: Page) -> None:
    assert page.loads and all(load.startswith(("data:", "#")) for load in page.loads)
    assert not any("@import" in style or "url(" in style for style in page.styles)
    assert any("Plotly" in script and len(script) > 1_000_000 for script in page.scripts)


def test_curves_lie_over_each_other_by_update_and_by_minute(page: Page) -> None:
    titles = page.texts("h3")
    assert titles == ["Loss", "Perplexity (ppl)", "Gradient norm (gnorm)", "Speed (wps)"]
    loss = page.figures()[0]["data"]
    assert [(t["name"], t["meta"]) for t in loss] == [
        ("a training", 0), ("a valid", 0), ("b training", 1), ("b valid", 1),
    ]  # fmt: skip
    assert loss[0]["y"][-1] == 7 and loss[2]["y"][-1] == 5
    assert loss[1]["x"] == [5, 10, 15, 20] and loss[1]["customdata"] == [0.25, 0.5, 0.75, 1.0]
    assert loss[0]["line"]["color"] == loss[1]["line"]["color"] != loss[2]["line"]["color"]
    assert (loss[0]["line"]["dash"], loss[1]["line"]["dash"]) == ("solid", "dash")
    assert [text for text in page.texts("button") if text.strip()] == [
        "a",
        "b",
        "by update",
        "by minute",
    ]


def test_settings_stand_side_by_side_with_differences_marked(page: Page) -> None:
    marked = [(text, "differs" in a.get("class", "")) for tag, a, text in page.cells if tag == "td"]
    assert marked[:2] == [("[0.1]", False), ("[0.2]", True)]
    assert not any(mark for _, mark in marked[2:])
    assert {"lr", "dropout", "arch"} <= set(page.texts("th"))


def test_a_setting_that_one_run_lacks_differs() -> None:
    runs = [Run("a", Path("a"), {}, {"x": 1, "y": 2}), Run("b", Path("b"), {}, {"x": 1})]
    different, common = compare_settings(runs)
    assert [(row.name, row.values, row.differs) for row in different] == [
        ("y", ["2", None], [False, True])
    ]
    assert [row.name for row in common] == ["x"]


def test_validation_sets_of_any_name_have_curves(tmp_path: Path) -> None:
    """`--valid-subset dev,valid_small,newstest2013`."""
    log = tmp_path / "train.log"
    log.write_text(
        '{"epoch": 1, "update": 0.5, "loss": "9", "nll_loss": "8", "num_updates": "10"}\n'
        '{"epoch": 1, "train_loss": "9", "train_nll_loss": "8", "train_num_updates": "20"}\n'
        '{"epoch": 1, "dev_loss": "7", "dev_nll_loss": "6", "dev_num_updates": "20"}\n'
        "epoch 001 | valid on 'valid_small' subset | loss 5 | nll_loss 4 | num_updates 20\n"
        "epoch 001 | valid on 'newstest2013' subset | loss 3 | nll_loss 2 | num_updates 20\n"
    )
    found = figures.curves_of(read_run(log, "x"), "loss")
    assert {name: curve.values for name, curve in found.items()} == {
        "training": [9], "dev": [7], "valid_small": [5], "newstest2013": [3]
    }  # fmt: skip


def test_thinning_keeps_peaks_and_ends() -> None:
    values = [0.0] * 10_000
    values[1234], values[7777] = 50.0, -3.0
    found = figures.thinned(Curve(list(range(10_000)), values), 100)
    assert len(found.updates) <= 102 and found.updates == sorted(found.updates)
    assert {0, 1234, 7777, 9999} <= set(found.updates)
    assert max(found.values) == 50 and min(found.values) == -3
    short = Curve([1, 2], [1.0, 2.0])
    assert figures.thinned(short, 100) is short


def test_runs_have_colours_of_their_own() -> None:
    assert len(set(figures.colours(20))) == 20


def test_text_of_logs_cannot_leave_its_place(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    log = tmp_path / "train.log"
    write_log(log, 0.1, arch="<b>bold")
    output = tmp_path / "r.html"
    main(["report", str(log), "--label", name, "--output", str(output)])
    page = Page(output.read_text(encoding="utf-8"))
    assert len(page.scripts) == 3 and page.figures()[0]["data"][0]["name"] == f"{name} training"
    assert "<b>bold" in page.texts("td")
    assert embedded({"a": [float("nan"), float("inf"), "<"]}) == '{"a":[null,null,"\\u003c"]}'


def test_a_run_whose_name_is_no_text_is_shown(tmp_path: Path) -> None:
    log = tmp_path / os.fsdecode(b"r\xfcn") / "train.log"
    write_log(log, 0.1)
    assert main(["report", str(log), "--output", str(tmp_path / "r.html")]) == 0
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "r\\udcfcn" in page.texts("button")


def test_runs_are_found_and_named(tmp_path: Path) -> None:
    write_log(tmp_path / "x" / "train.log", 0.1)
    write_log(tmp_path / "y" / "train.log", 0.1)
    (tmp_path / "x" / "checkpoints").mkdir()
    (tmp_path / "x" / "evaluate.log").write_text("no curves\n")
    study = {"seed": 3, "train_ppl": {"updates": [1, 2], "values": [9.0, 8.0]}, "omegas": {}}
    (tmp_path / "study.json").write_text(json.dumps(study))
    paths = [str(tmp_path / "x" / "checkpoints"), str(tmp_path / "y" / "train.log")]
    paths.append(str(tmp_path / "study.json"))
    runs = read_runs(paths)
    assert [run.label for run in runs] == ["x", "y", "study"]
    assert runs[2].curves == {"train_ppl": Curve([1, 2], [9.0, 8.0])} and runs[2].settings == {
        "seed": 3
    }
    same = [str(tmp_path / "x"), str(tmp_path / "x" / "train.log")]
    assert [run.label for run in read_runs(same)] == same


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path / "a.log", 0.1)
    write_log(tmp_path / "b.log", 0.1)
    (tmp_path / "none").mkdir()
    (tmp_path / "empty.log").write_text("nothing\n")
    a, out = str(tmp_path / "a.log"), str(tmp_path / "r.html")
    for arguments, code, message in (
        ([str(tmp_path / "missing")], 1, "does not exist"),
        ([str(tmp_path)], 1, "several training logs (a.log, b.log)"),
        ([str(tmp_path / "none")], 1, "holds no training log"),
        ([str(tmp_path / "empty.log")], 1, "holds no progress of fairseq-train"),
        ([a, a], 2, "same name"),
        ([a, "--label", "x", "y"], 2, "--label: 2 names for 1 runs"),
    ):
        assert main(["report", *arguments, "--output", out]) == code
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["report", a, "--output", a]) == 2
    assert not Path(out).exists()


def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(tmp_path / "a.log", 0.1)
    for module in ("plotly", "plotly.graph_objects"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(["report", str(tmp_path / "a.log"), "--output", str(tmp_path / "r.html")]) == 1
    error = capsys.readouterr().err
    assert "pip install admin_nmt[report]" in error and error.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


#: Uses the page as a reader does, and leaves what it saw in an attribute.
PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const plot = document.querySelector("[data-figure]");
  const x = () => plot.data.map((trace) => trace.x[0]);
  const seen = { updates: x(), text: plot.layout.font.color };
  document.querySelector("[data-axis=minutes]").click();
  seen.minutes = x();
  document.querySelector('[data-run="0"]').click();
  seen.visible = plot.data.map((trace) => trace.visible);
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  document.body.dataset.seen = btoa(JSON.stringify(seen));
}, 500));
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize(("width", "dark", "text"), [(1300, 0, "#e4e8ec"), (500, 1, "#1d2329")])
def test_a_browser_draws_the_page_and_its_switches_work(
    page: Page, tmp_path: Path, width: int, dark: int, text: str
) -> None:
    assert CHROMIUM is not None
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    probed = tmp_path / "probed.html"
    probed.write_text(html.replace("</body>", PROBE), encoding="utf-8")
    browser = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},6000",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom",
         "--enable-logging=stderr", f"--blink-settings=preferredColorScheme={dark}",
         probed.as_uri()],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    assert not re.findall(r".*CONSOLE.*", browser.stderr)
    assert browser.stdout.count('class="main-svg"') >= len(page.figures())
    found = re.search(r'data-seen="([^"]*)"', browser.stdout)
    assert found
    seen = json.loads(base64.b64decode(found[1]))
    assert seen["updates"] == [1, 5, 1, 5] and seen["minutes"] == [0.05, 0.25, 0.05, 0.25]
    assert seen["visible"] == [False, False, True, True]
    assert seen["text"] == text and seen["overflow"] <= 0


def test_a_run_reads_from_its_folder(tmp_path: Path) -> None:
    write_log(tmp_path / "train.log", 0.1, updates=4)
    run = read_run(tmp_path, "name")
    assert (run.label, run.origin) == ("name", tmp_path / "train.log")
    assert run.curves["wall"] == Curve([1, 2, 3, 4], [3, 6, 9, 12])
