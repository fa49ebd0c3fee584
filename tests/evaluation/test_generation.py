"""Contracts: fairseq's output is parsed and put in order; the direction is found or asked for."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.checkpoints.direction import find_direction
from admin_nmt.checkpoints.settings import languages
from admin_nmt.data.binarised import num_sentences
from admin_nmt.errors import UsageError, UserError
from admin_nmt.evaluation.generation import (
    SearchOptions,
    _failure,
    _read_output,
    generate_command,
    in_corpus_order,
    parse_line,
)


def test_lines_of_fairseq_generate_are_told_apart():
    assert parse_line("H-12\t-0.5\tein Haus\u2028da .") == ("H", 12, "ein Haus\u2028da .")
    assert parse_line("H-3\t-1.5\t") == ("H", 3, "")
    assert parse_line("T-7\ta house .") == ("T", 7, "a house .")
    assert parse_line("S-7\tein Haus .") == ("S", 7, "ein Haus .")
    for other in ("D-7\t-0.5\tein", "P-7\t-0.1", "2026 | INFO | H-1\t0\tx", ""):
        assert parse_line(other) is None


@given(st.permutations(range(12)))
def test_translations_return_in_corpus_order(order):
    output = []
    for number in order:
        output += [
            f"S-{number}\tsrc {number}",
            f"T-{number}\tref {number}",
            f"H-{number}\t-1\thyp {number}",
        ]
        output += [f"D-{number}\t-1\tother", f"P-{number}\t-1 -1"]
    hypotheses, references, sources = _read_output([line.encode() + b"\n" for line in output], 12)
    assert in_corpus_order(hypotheses, 12, "x") == [f"hyp {number}" for number in range(12)]
    assert in_corpus_order(references, 12, "x") == [f"ref {number}" for number in range(12)]
    assert in_corpus_order(sources, 12, "x") == [f"src {number}" for number in range(12)]


def test_missing_sentences_are_refused_not_skipped():
    with pytest.raises(UserError, match=r"no hypothesis for 2 of 4 sentences \(first: line 2\)"):
        in_corpus_order({0: "a", 2: "c"}, 4, "hypothesis")
    with pytest.raises(UserError, match=r"no hypothesis for any"):
        in_corpus_order({}, 0, "hypothesis")


def test_no_sentence_is_left_out_for_the_sake_of_batch_sizes():
    command = generate_command("data", "m.pt", "test", "de", "en", SearchOptions())
    position = command.index("--required-batch-size-multiple")
    assert command[position + 1] == "1"


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


def test_reverse_of_the_trained_direction_is_refused(tmp_path):
    data = folder(tmp_path, "test.de-en.de.idx", "test.de-en.en.idx")
    with pytest.raises(UsageError, match=r"--source-lang en .*trained to translate from de to en"):
        find_direction(data, "test", "en", None, ("de", "en"))


def test_direction_follows_the_checkpoint_unless_told_otherwise(tmp_path):
    data = folder(tmp_path, "test.de-en.de.idx", "test.de-en.en.idx")
    assert find_direction(data, "test", None, None, ("en", "de")) == ("en", "de")
    assert find_direction(data, "test", "de", "en", ("deu", "eng")) == ("de", "en")
    assert find_direction(data, "test", None, None, ("fr", "en")) == ("de", "en")


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


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ("", "fairseq-generate failed: exit status 9"),
        (
            "INFO:x\nTraceback (most recent call last):\n  File\nException: Size of sample #5\n",
            "fairseq-generate failed: Size of sample #5",
        ),
        (
            "Traceback\nRuntimeError: Error(s):\n\tsize mismatch for a: 1\n\tsize mismatch for b\n",
            "fairseq-generate failed: RuntimeError: Error(s): size mismatch for a: 1 size mismatch "
            "for b",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to\n",
            "fairseq-generate ran out of memory: lower --max-tokens or --beam",
        ),
    ],
)
def test_failures_of_fairseq_become_one_line(errors, message):
    assert str(_failure(9, errors)) == message
