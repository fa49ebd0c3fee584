"""Contracts: translations are those of fairseq-generate, in order; the direction is found or asked for."""

import os
import re
import struct

import pytest
import torch

from admin_nmt.checkpoints.direction import find_direction
from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.checkpoints.settings import languages
from admin_nmt.data.data_folder import num_sentences
from admin_nmt.errors import UsageError, UserError
from admin_nmt.evaluation.decoding import Decoder, SearchOptions
from admin_nmt.evaluation.generation import load_ensemble, translate
from tests.support.in_process import run_fairseq


def generated(capsys, tiny_run, path, *options):
    """(hypotheses, references, sources) of fairseq-generate in corpus order."""
    capsys.readouterr()
    run_fairseq(
        "fairseq-generate", tiny_run / "data-bin", "--path", path, "--cpu", "--gen-subset", "valid",
        "--required-batch-size-multiple", 1, *options,
    )  # fmt: skip
    output = capsys.readouterr().out
    found = {kind: {} for kind in "HTS"}
    for kind, number, text in re.findall(r"^([HTS])-(\d+)\t(?:-\S+\t)?(.*)$", output, re.MULTILINE):
        found[kind][int(number)] = text
    return tuple([texts[n] for n in sorted(texts)] for texts in found.values())


def test_translations_are_those_of_fairseq_generate(capsys, tiny_run):
    """Of two models together, in several batches, of a subset whose order fairseq draws."""
    path = os.pathsep.join(str(tiny_run / "checkpoints" / f"checkpoint{n}.pt") for n in (1, 2))
    options = SearchOptions(beam=3, lenpen=0.6, max_tokens=60, cpu=True)
    ours = translate(tiny_run / "data-bin", path, "valid", "de", "en", options)
    theirs = generated(capsys, tiny_run, path, "--beam", 3, "--lenpen", 0.6, "--max-tokens", 60)
    assert len(ours.hypotheses) == 8
    assert (ours.hypotheses, ours.references, ours.sources) == theirs


@pytest.fixture
def decoder(tiny_run):
    """`decoder(options, **arguments)`: of the first model on the test set."""

    def make(options=None, **arguments):
        options = options or SearchOptions(cpu=True)
        path = str(tiny_run / "checkpoints" / "checkpoint1.pt")
        loaded = load_ensemble(tiny_run / "data-bin", path, "test", "de", "en", options)
        return Decoder(*loaded, "test", options, **arguments)

    return make


def test_sentences_come_in_corpus_order_whatever_the_batches(decoder):
    counts = []
    whole, small = decoder(), decoder(SearchOptions(max_tokens=25, cpu=True), max_sentences=7)
    assert len(small.batches) > len(whole.batches)
    assert small.decode(counts.append) == whole.decode()[:7]
    assert sum(counts) == 7 and small.references == whole.references[:7]


def test_a_full_gpu_is_one_line(decoder, monkeypatch):
    full = decoder()

    def inference_step(*arguments):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to")

    monkeypatch.setattr(full.task, "inference_step", inference_step)
    with pytest.raises(UserError, match=r"the GPU ran out of memory: lower --max-tokens or --beam"):
        full.decode()


def test_checkpoints_that_fairseq_cannot_load_are_one_line(tiny_run, tmp_path):
    state = load_checkpoint_file(tiny_run / "checkpoints" / "checkpoint1.pt")
    del state["model"]["decoder.layers.0.fc1.weight"]
    path = tmp_path / "damaged.pt"
    torch.save(state, path)
    with pytest.raises(
        UserError, match=r"fairseq cannot translate with .*damaged.pt: .+"
    ) as caught:
        translate(tiny_run / "data-bin", str(path), "test", "de", "en", SearchOptions(cpu=True))
    assert "\n" not in str(caught.value)


def test_search_options_below_one_are_refused():
    with pytest.raises(UsageError, match=r"--beam 0"):
        SearchOptions(beam=0)
    with pytest.raises(UsageError, match=r"--max-tokens -5"):
        SearchOptions(max_tokens=-5)


def folder(tmp_path, *names):
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def test_direction_of_a_single_pair_is_that_of_the_names(tmp_path):
    data = folder(tmp_path, "test.de-en.de.idx", "test.de-en.en.idx", "dict.de.txt")
    assert find_direction(data, "test", None, None) == ("de", "en")
    assert find_direction(data, "test", "en", None) == ("en", "de")
    assert find_direction(data, "test", None, "de") == ("en", "de")


@pytest.mark.parametrize(
    "pair", [("pt-br", "en"), ("en", "pt-br"), ("zh-tw", "zh"), ("zh", "zh-tw")]
)
def test_languages_may_have_hyphens(tmp_path, pair):
    """As for fairseq, which wants them named."""
    data = folder(tmp_path, *(f"test.{'-'.join(pair)}.{language}.idx" for language in pair))
    assert find_direction(data, "test", None, None) == pair
    assert find_direction(data, "test", pair[1], pair[0]) == pair[::-1]
    task = {"data": str(data), "source_lang": None, "target_lang": None}
    assert languages({"cfg": {"task": task}}) == pair


def test_reverse_of_the_trained_direction_is_refused(tmp_path):
    data = folder(tmp_path, "test.de-en.de.idx", "test.de-en.en.idx")
    with pytest.raises(UsageError, match=r"--source-lang en .*trained to translate from de to en"):
        find_direction(data, "test", "en", None, ("de", "en"))


def test_direction_follows_the_checkpoint_unless_told_otherwise(tmp_path):
    data = folder(tmp_path, "test.de-en.de.idx", "test.de-en.en.idx")
    assert find_direction(data, "test", None, None, ("en", "de")) == ("en", "de")
    assert find_direction(data, "test", "de", "en", ("deu", "eng")) == ("de", "en")
    assert find_direction(data, "test", None, None, ("fr", "en")) == ("de", "en")


def test_a_folder_with_files_for_both_directions(tmp_path):
    data = folder(tmp_path, "test.de-en.de.idx", "test.en-de.de.idx")
    assert find_direction(data, "test", None, None, ("en", "de")) == ("en", "de")
    assert find_direction(data, "test", "en", None) == ("en", "de")
    with pytest.raises(UsageError, match="holds test for de-en, en-de: give --source-lang"):
        find_direction(data, "test", None, None)


@pytest.mark.parametrize(
    ("names", "direction"),
    [
        (["train.de-en.de.idx", "train.de-en.en.idx", "dict.de.txt"], ("de", "en")),
        (["train.de-en.de.idx", "train.fr-en.fr.idx"], (None, None)),
        (["notes.txt"], (None, None)),
    ],
)
def test_languages_that_fairseq_took_from_file_names_are_found_there(tmp_path, names, direction):
    """It leaves them out of checkpoints; the reverse direction would be translated into nonsense."""
    task = {"data": str(folder(tmp_path, *names)), "source_lang": None, "target_lang": None}
    assert languages({"cfg": {"task": task}}) == direction
    assert languages({"cfg": {"task": task | {"data": "/nowhere"}}}) == (None, None)
    recorded = task | {"source_lang": "en", "target_lang": "de"}
    assert languages({"cfg": {"task": recorded}}) == ("en", "de")


def test_several_pairs_need_a_choice(tmp_path):
    data = folder(tmp_path, "test.de-en.de.idx", "test.fr-en.fr.idx", "valid.cs-en.cs.idx")
    with pytest.raises(UsageError, match=r"de-en, fr-en: give --source-lang and --target-lang"):
        find_direction(data, "test", None, "en")
    assert find_direction(data, "test", "fr", None) == ("fr", "en")
    assert find_direction(data, "test", None, None, ("fr", "en")) == ("fr", "en")


@pytest.mark.parametrize(
    ("subset", "source", "message"),
    [
        ("dev", None, r"no subset dev; --gen-subset can be one of test, valid"),
        ("test", "cs", r"no subset test for --source-lang cs --target-lang any; it has de-en"),
    ],
)
def test_unknown_subset_or_language_names_the_choices(tmp_path, subset, source, message):
    data = folder(tmp_path, "test.de-en.de.idx", "test.de-en.en.idx", "valid.de-en.de.idx")
    with pytest.raises(UserError, match=message):
        find_direction(data, subset, source, None)


def test_folders_that_hold_no_data_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"data folder not found: .*nowhere"):
        find_direction(tmp_path / "nowhere", "test", None, None)
    with pytest.raises(UserError, match=r"no binarised text .*fairseq-preprocess"):
        find_direction(tmp_path, "test", None, None)


def test_number_of_sentences_is_read_from_the_index(tmp_path, tiny_run):
    assert num_sentences(tiny_run / "data-bin", "test", "de", "en") == 20
    assert num_sentences(tiny_run / "data-bin", "test", "en", "de") == 20
    (tmp_path / "test.de-en.de.idx").write_bytes(b"TNTIDX\0\0" + struct.pack("<4Q", 1, 4, 4, 9))
    assert num_sentences(tmp_path, "test", "de", "en") is None
