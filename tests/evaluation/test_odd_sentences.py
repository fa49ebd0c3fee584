"""One odd sentence stops no job: empty lines stay empty, long ones go in pieces or are left out by name."""

import json
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.cli.main import main
from admin_nmt.evaluation.batches import batches_of
from admin_nmt.evaluation.decoding import Decoder, SearchOptions
from admin_nmt.evaluation.generation import load_ensemble
from admin_nmt.evaluation.text import read_lines
from tests.support.binarised import write_subset

#: More subwords than the 1,023 that the model reads, in words of two.
LONG = ["ein@@", "e"] * 700
REST = 5


@pytest.fixture(scope="session")
def odd_data(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tiny_run` with a subset `odd`, where a real test set's oddities are among
    ordinary lines, and one `pieces`, where its long line stands in pieces."""
    data = tmp_path_factory.mktemp("odd") / "data-bin"
    shutil.copytree(tiny_run / "data-bin", data)
    rng = random.Random(4)
    words = ["haus", "tür", "gut", "läuft", "well-bekannt", "."]
    plain = [(rng.choices(words, k=4), ["good", "door", "."]) for _ in range(REST)]
    long = (LONG, ["a"] * 30)
    long_reference = (["gut", "."], ["good"] * 1500)
    write_subset(data, "odd", [plain[0], ([], ["a"]), *plain[1:3], long, ([], []), long_reference,
                               (["haus"], []), *plain[3:]])  # fmt: skip
    write_subset(data, "pieces", [*plain, (LONG[:1022], []), (LONG[1022:], []), long_reference])
    return data


@pytest.fixture
def decoder(
    tiny_run: Path, odd_data: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Decoder]:
    """`decoder(subset, **options)` with a search that gives the source backwards, in numbers of
    the target's words, so that no two sentences have the same translation."""

    def backwards(generator: Any, models: Any, sample: Any) -> list[list[dict[str, Any]]]:
        rows = sample["net_input"]["src_tokens"]
        assert rows.shape[1] <= 1024
        end = torch.tensor([9])  # as a search makes something up for an empty line
        return [
            [{"tokens": torch.cat([4 + row[row > 3].flip(0) % 5, end]), "score": 0}] for row in rows
        ]

    def make(subset: str, **options: Any) -> Decoder:
        search = SearchOptions(beam=1, cpu=True, **options)
        path = str(tiny_run / "checkpoints" / "checkpoint2.pt")
        models, task = load_ensemble(odd_data, path, subset, "de", "en", search)
        monkeypatch.setattr(task, "inference_step", backwards)
        return Decoder(models, task, subset, search)

    return make


def test_long_sentences_are_translated_in_pieces_and_all_keep_their_place(
    decoder: Callable[..., Decoder], caplog: pytest.LogCaptureFixture
) -> None:
    """The pieces are those of `admin-nmt translate`; a long reference matters to nobody."""
    *plain, first, second, beside_long = decoder("pieces").decode()
    with caplog.at_level(logging.WARNING):
        odd = decoder("odd")
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [PIECES]
    counts: list[int] = []
    found = odd.decode(counts.append)
    assert len({*plain, first, second, beside_long}) == REST + 3
    assert found[:7] == [plain[0], "", *plain[1:3], f"{first} {second}", "", beside_long]
    assert found[7] and found[8:] == plain[3:]
    assert sum(counts) == len(found) == 10
    assert decoder("odd", max_tokens=50).decode() == found  # less than a piece


def test_pieces_may_have_long_translations_and_other_lines_fairseqs(
    decoder: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = decoder("odd", max_tokens=50)
    search, limits = odd.task.inference_step, []

    def noted(generator: Any, models: Any, sample: Any) -> Any:
        limits.append((generator.max_len_a, generator.max_len_b))
        return search(generator, models, sample)

    monkeypatch.setattr(odd.task, "inference_step", noted)
    odd.decode()
    # Two pieces of 1,022 and 378 subwords come last; the model writes 1,023 and an end.
    assert limits[-2:] == [(0, 1023), (0, 2 * 378)]
    assert limits[:-2] == [(0, 200)] * len(odd.batches)


def test_batches_hold_a_sentence_of_any_length(decoder: Callable[..., Decoder]) -> None:
    dataset = decoder("odd").dataset
    order = dataset.ordered_indices().tolist()
    batches = batches_of(dataset, order, 20)
    assert sorted(n for batch in batches for n in batch) == list(range(10))
    assert [4] in batches and [6] in batches and max(map(len, batches)) > 1
    assert batches_of(dataset, [], 20) == []


PIECES = "line 5 of subset odd has 1400 subwords, the model reads 1023: translated in 2 pieces"
LEFT_OUT = "line 5 of subset odd is left out: it has 1401 source and 31 target tokens, the model reads 1024 and 1024"
LONG_TARGET = "line 7 of subset odd is left out: it has 3 source and 1501 target tokens, the model"
QUICK = "--beam 1 --max-sentences 7"
COMMANDS = {
    "evaluate": ("--gen-subset odd --beam 1", [PIECES]),
    "ablate": (f"--gen-subset odd {QUICK} --experiments one-head --kinds A --paired-bs-n 9 "
               "--paired-ar-n 9", [PIECES]),
    "prune-sweep": (f"--gen-subset odd {QUICK} --subset odd --step 0.5 --largest 0.5 --groups EAD "
                    "--random-orders 0", [PIECES, LEFT_OUT, LONG_TARGET]),
    "importance": ("--subset odd", [LEFT_OUT, LONG_TARGET]),
    "analyze": ("--gen-subset odd", [LEFT_OUT, LONG_TARGET]),
}  # fmt: skip


@pytest.mark.parametrize(("command", "options", "told"), [(k, *v) for k, v in COMMANDS.items()])
def test_no_command_stops_at_an_odd_sentence(
    tiny_run: Path, odd_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    command: str, options: str, told: list[str],
) -> None:  # fmt: skip
    path, output = tiny_run / "checkpoints" / "checkpoint2.pt", tmp_path / "out"
    with caplog.at_level(logging.WARNING):
        assert main([command, str(odd_data), "--path", str(path), "--cpu", *options.split(),
                     "--output", str(output)]) == 0  # fmt: skip
    for line in told:
        assert caplog.text.count(line) == 1
    assert "have invalid sizes" not in caplog.text  # fairseq's own line, which names no line
    if command == "evaluate":
        assert json.loads((output / "scores.json").read_text())["num_sentences"] == 10
        hypotheses = read_lines(output / "hypotheses.detok")
        assert hypotheses[1] == hypotheses[5] == "" and any(hypotheses)
        assert len(read_lines(output / "references.tok")) == 10
    if command == "importance":
        (measured,) = json.loads(output.read_text())["measurements"]
        assert measured["settings"]["num_examples"]["D"] == REST * 4 + 2 + 1 + 1
