"""`admin-nmt translate`: raw text in, raw text out, with the exported folder and the checkpoint."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.cli.main import main
from tests.support.odd_lines import ODD_LINES
from tests.support.words import ENGLISH, GERMAN

#: What `admin-nmt` starts, where neither can be imported.
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["fairseq"] = None
from admin_nmt_autoload import main
sys.exit(main())
"""


def fails(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    """Exit code and the only error line of a call in this process."""
    code = main(["translate", *map(str, args)])
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if "error:" in line]
    assert len(errors) == 1 and not captured.out and "Traceback" not in captured.err
    return code, errors[0]


def test_anything_from_standard_input_keeps_its_line(exported: Path) -> None:
    """Odd and empty lines, broken bytes, long lines and a last line without end; it needs neither
    PyTorch nor fairseq."""
    lines = [line.encode() for line in GERMAN]
    odd = [line.encode() for line in ODD_LINES]
    long = " ".join(["Hund"] * 100).encode()
    data = b"\n".join([*lines, b"Hund \xff.", long, *odd, lines[0]])
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "translate", str(exported), "--threads", "1"],
        input=data, capture_output=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr.decode()
    output = result.stdout.decode().split("\n")
    assert output[: len(GERMAN)] == ENGLISH
    assert len(output) == len(GERMAN) + 2 + len(odd) + 2
    found = dict(zip(ODD_LINES, output[len(GERMAN) + 2 :], strict=False))
    assert [line for line, text in found.items() if not text] == ["", " \t ", "\x00", "\u2028"]
    assert output[-2:] == [ENGLISH[0], ""]
    said = result.stderr.decode()
    assert "line 6 is not valid UTF-8" in said
    assert "line 7 has 10" in said and "translated in 2 pieces" in said


def test_a_checkpoint_finds_the_data_it_was_trained_on(word_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("\n".join(GERMAN) + "\n", encoding="utf-8")
    command = ["translate", word_model, "--input", tmp_path / "in", "--output", tmp_path / "out"]
    assert main([*map(str, command), "--threads", "1"]) == 0
    assert (tmp_path / "out").read_text(encoding="utf-8") == "\n".join(ENGLISH) + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_nbest_lines_have_number_score_and_text(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("Hund läuft.\n\nKatze schläft.\n", encoding="utf-8")
    output = tmp_path / "out"
    command = ["translate", exported, "--input", tmp_path / "in", "--output", output]
    assert main([*map(str, command), "--nbest", "2", "--threads", "1"]) == 0
    rows = [line.split("\t") for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row[0] for row in rows] == ["1", "1", "2", "3", "3"]
    assert [rows[0][2], rows[2][2], rows[3][2]] == ["dog runs.", "", "cat sleeps."]
    assert 0 > float(rows[0][1]) > float(rows[1][1])


def test_both_engines_sample_by_seed(exported: Path, word_model: Path, tmp_path: Path) -> None:
    """Many at a high temperature; at the most probable subword it is the search with a beam of 1."""
    (tmp_path / "in").write_text("Hund läuft.\nKatze schläft.\n", encoding="utf-8")

    def rows(model: Path, *options: object) -> list[list[str]]:
        output = tmp_path / "out"
        command = ["translate", model, "--input", tmp_path / "in", "--output", output, "--force"]
        assert main([*map(str, command), "--threads", "1", *map(str, options)]) == 0
        return [line.split("\t") for line in output.read_text(encoding="utf-8").splitlines()]

    for model in (exported, word_model):
        samples = ["--sampling", "--nbest", 20, "--temperature", 3]
        first, again, other = (rows(model, *samples, "--seed", seed) for seed in (3, 3, 4))
        assert first == again != other
        assert [row[0] for row in first] == ["1"] * 20 + ["2"] * 20
        scores = [float(row[1]) for row in first[:20]]
        assert scores == sorted(scores, reverse=True) and len({row[2] for row in first[:20]}) > 10
        assert not any(special in row[2] for row in first for special in ("<s>", "<blank>"))
        greedy = rows(model, "--beam", 1)
        sampling = ["--sampling", "--temperature", 3]
        assert rows(model, *sampling, "--sampling-topk", 1) == greedy
        # More than there are is all of them.
        assert len(rows(model, *sampling, "--sampling-topk", 10**6, "--seed", 2**32 - 1)) == 2
        assert rows(model, *sampling, "--sampling-topp", 1e-3) == greedy


def test_bad_calls_are_one_line_and_lose_nothing(
    exported: Path,
    word_model: Path,
    prepared: Path,
    data_bin: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = tmp_path / "text"
    text.write_text("Hund.\n")
    (tmp_path / "garbage.pt").write_bytes(b"PK\x03\x04 garbage")
    cases = [
        ((tmp_path / "missing",), 1, "missing"),
        ((tmp_path / "garbage.pt",), 1, "garbage.pt"),
        ((tmp_path,), 1, "is not an exported folder: it has no export.json"),
        ((exported, "--input", tmp_path / "no"), 1, "cannot read --input"),
        ((exported, "--output", text), 1, "exists: give another name, or --force"),
        ((exported, "--input", text, "--output", text, "--force"), 2, "is an input"),
        ((exported, "--output", tmp_path / "no" / "out"), 2, "there is no folder"),
        ((exported, "--beam", 0), 2, "--beam 0"),
        ((exported, "--beam", 2, "--nbest", 3), 2, "--nbest 3 needs --beam"),
        ((exported, "--seed", 2), 2, "--temperature and --seed need --sampling"),
        ((exported, "--threads", 0), 2, "--threads 0"),
        ((exported, "--device", "tpu"), 2, "--device tpu: choose from auto, cpu, cuda"),
        ((exported, "--data", prepared), 2, "is an exported folder, which has all settings"),
        ((word_model, "--device", "cuda"), 1, "--device cuda: PyTorch finds no GPU here"),
        ((word_model, "--data", tmp_path / "no"), 1, "data folder not found"),
        ((word_model, "--data", data_bin), 1, "has no preparation.json"),
        ((word_model, "--source-lang", "en"), 2, "the checkpoint was trained with de"),
    ]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for args, code, reason in cases:
        monkeypatch.setattr(sys, "stdin", None)  # nothing is read before all is checked
        found, line = fails(capsys, *args)
        assert reason in line and found == code, (args, found, line)
    assert text.read_text() == "Hund.\n"


def test_a_checkpoint_of_an_unknown_architecture_is_refused_by_its_name(
    make: Callable[..., Any], prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    _, path = make(tmp_path / "model.pt")
    state = torch.load(path, weights_only=True)
    state["cfg"]["model"].arch = "made_up"
    torch.save(state, path)
    for command in (
        ["fold", path, "--output", tmp_path / "out.pt"],
        ["export", path, prepared, "--output", tmp_path / "out"],
        ["translate", path, "--data", prepared],
    ):
        code = main([*map(str, command)])
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert code == 1 and "of architecture made_up" in line, line


def test_the_python_example_of_the_readme_runs(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (example,) = [
        block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "load_tr" in block
    ]
    (tmp_path / "text.de").write_text("Hund läuft.\n\nKatze schläft.\n", encoding="utf-8")
    example = example.replace("Ein Hund läuft.", "Hund läuft.")
    example = example.replace("text.de", str(tmp_path / "text.de"))
    names: dict[str, Any] = {}
    exec(example.replace('"exported"', repr(str(exported))), names)
    assert capsys.readouterr().out == "dog runs.\n\ncat sleeps.\n"
    assert names["translator"].translate(["Hund läuft."]) == ["dog runs."]
