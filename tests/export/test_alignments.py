"""`admin-nmt translate --alignments`: words of the lines, by the attention of either engine."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from admin_nmt.cli.main import main
from admin_nmt.errors import UserError
from admin_nmt.export import TextOptions, export_bundle, load_translator
from admin_nmt.export.search import Alignment, Sampling, Search
from admin_nmt.export.translator import Translation

#: The model translates word by word; heads 1 and 2 of its last layer say so best.
LINES = ["Hund läuft.", "", "Straße   sieht Katze Haus grün.", "Haus schläft Hund."]


def found(translator: Any, lines: list[str] = LINES, **options: Any) -> list[list[Translation]]:
    search = Search(**{"alignment": Alignment(), **options})
    return list(translator.stream(lines, search))


def test_word_by_word_translations_are_aligned_so(word_model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    command = ["translate", word_model, "--input", tmp_path / "in", "--output", tmp_path / "out"]
    command += ["--alignments", tmp_path / "links", "--threads", 1]
    assert main([*map(str, command)]) == 0
    rows = [row.split() for row in (tmp_path / "links").read_text().split("\n")]
    right = [[f"{n}-{n}" for n in range(len(line.split()))] for line in LINES]
    assert len(rows) == len(LINES) + 1 and rows[1] == []
    agree = sum(link in row for row, links in zip(rows, right, strict=False) for link in links)
    assert agree >= 8  # of 10
    assert sum(map(len, rows)) <= 13  # or almost anything would agree
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "links", "out"]


def test_both_engines_have_the_same_alignments(
    word_model: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In batches of several sentences, with and without a beam, for any layer and heads."""
    checkpoint = load_translator(word_model, threads=1)
    for layer, heads in ((0, 1), (1, None)):
        options = ["--alignment-layer", layer] + ["--alignment-heads", heads] * bool(heads)
        command = [
            "export",
            word_model,
            prepared,
            "--output",
            tmp_path / "out",
            "--force",
            *options,
        ]
        assert main([*map(str, command)]) == 0
        exported = load_translator(tmp_path / "out", threads=1)
        for how in ({"beam": 5, "nbest": 3}, {"beam": 1}):
            theirs = found(checkpoint, alignment=Alignment(layer, heads), **how)
            ours = found(exported, **how)
            for a, b in zip(theirs, ours, strict=True):
                assert [entry.text for entry in a] == [entry.text for entry in b]
                assert [entry.alignment for entry in a] == [entry.alignment for entry in b]


def test_samples_and_long_lines_are_aligned_within_their_lines(
    exported: Path, word_model: Path
) -> None:
    long = " ".join(["Hund läuft Katze"] * 30) + "."
    for model in (exported, word_model):
        translator = load_translator(model, threads=1)
        sampling = Sampling(temperature=3.0)
        samples, (whole,) = (
            found(translator, [LINES[2]], nbest=8, sampling=sampling)[0],
            found(translator, [long])[0],
        )
        assert len({sample.alignment for sample in samples}) > 1
        for line, entry in [(long, whole), *((LINES[2], sample) for sample in samples)]:
            sources, targets = ({link[side] for link in entry.alignment} for side in (0, 1))
            assert sources <= set(range(len(line.split())))
            assert targets == set(range(len(entry.text.split())))
        assert max(source for source, _ in whole.alignment) > 60  # of the second piece


def test_bad_calls_are_one_line(
    exported: Path, word_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    links = tmp_path / "links"
    (tmp_path / "in").write_text("Hund.\n", encoding="utf-8")
    read = ["--input", tmp_path / "in"]
    cases = [
        ((exported, "--alignment-layer", 1), 2, "need --alignments FILE"),
        ((exported, "--alignments", links, "--alignment-layer", 1), 2, "to admin-nmt export"),
        ((word_model, "--alignments", links, "--alignment-layer", 2), 2, "has layers 0 to 1"),
        ((word_model, "--alignments", links, "--alignment-heads", 5), 2, "of the decoder has 4"),
        ((exported, "--alignments", tmp_path / "in", "--force"), 2, "is an input"),
        ((exported, "--alignments", tmp_path / "in"), 2, "is an input"),
        ((exported, "--alignments", tmp_path / "no" / "links"), 2, "--alignments"),
        ((exported, "--output", links, "--alignments", links), 2, "is the --output"),
    ]
    for args, code, reason in cases:
        assert main([*map(str, ["translate", *args, *read, "--threads", 1])]) == code, args
        (line,) = [row for row in capsys.readouterr().err.splitlines() if "error:" in row]
        assert reason in line, line
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_was_trained_to_align_is_exported(
    make: Callable[..., Any], data_bin: Path, tmp_path: Path
) -> None:
    """Its layer and heads by default; attention that sees the whole translation only in the checkpoint."""
    (tmp_path / "codes").write_text("#version: 0.2\nw 1\n")
    text = TextOptions(bpe_codes=tmp_path / "codes", source_lang="de", target_lang="en")
    lines = ["w1 w2 w3 w4", "w7 w5", "w9 w8 w7 w6 w5 w4"]
    trained = ("--share-all-embeddings", "--alignment-layer", "0", "--alignment-heads", "2")
    trained += ("--max-target-positions", "12")
    _, path = make(tmp_path / "guided.pt", *trained)
    content = export_bundle(path, data_bin, tmp_path / "out", options=text)
    assert content["alignment"] == {"layer": 0, "heads": 2, "full_context": False}
    options = {"data": data_bin, "options": text, "threads": 1}
    ours, theirs = (
        load_translator(tmp_path / "out", threads=1),
        load_translator(path, **options),
    )
    for a, b in zip(found(ours, lines), found(theirs, lines), strict=True):
        assert (a[0].text, a[0].alignment) == (b[0].text, b[0].alignment)
    other = found(theirs, lines, alignment=Alignment(1))
    assert [e[0].alignment for e in other] != [e[0].alignment for e in found(theirs, lines)]

    _, path = make(tmp_path / "whole.pt", *trained, "--full-context-alignment")
    whole = load_translator(path, **options)
    assert [e[0].text for e in found(whole, lines)] == [e[0].text for e in other]
    assert [e[0].alignment for e in found(whole, lines)] != [
        e[0].alignment for e in found(theirs, lines)
    ]
    export_bundle(path, data_bin, tmp_path / "out", options=text, force=True)
    with pytest.raises(UserError, match="--full-context-alignment"):
        found(load_translator(tmp_path / "out", threads=1), lines)


def test_the_python_example_of_the_page_runs(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "alignments.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    example = example.replace("Ein Hund läuft.", "Hund läuft.").replace(
        '"exported"', repr(str(exported))
    )
    exec(example, {})
    assert capsys.readouterr().out == "dog runs. ((0, 0), (1, 1))\n"
