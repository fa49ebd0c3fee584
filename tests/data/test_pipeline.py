"""The pipeline gives what the published recipes give, however it is run and interrupted."""

import errno
import io
import itertools
import json
import os
import shutil
import struct
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import regex
from sacrebleu.dataset.fake_sgml import FakeSGMLDataset
from sacremoses import MosesPunctNormalizer, MosesTokenizer
from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe

from admin_nmt.data import binarize, bpe, pipeline
from admin_nmt.data.corpora import Archive, Cleaning, Corpus, Source
from admin_nmt.data.corpus_files import load_corpus
from admin_nmt.data.pipeline import prepare
from admin_nmt.data.state import State
from admin_nmt.data.text_pipeline import TextPipeline
from admin_nmt.errors import UserError
from admin_nmt.evaluation.preparation import read_preparation
from admin_nmt.files import locked
from tests.support.odd_lines import ODD_LINES


def lines_of(path: Path) -> list[str]:
    text = path.read_bytes().decode()
    assert text == "" or text.endswith("\n")
    return text.split("\n")[:-1]


def published(corpus: Corpus) -> Corpus:
    """The corpus without checksums, so that the archives of the tests pass."""
    archives = {name: Archive(name, item.url) for name, item in corpus.archives.items()}
    return replace(corpus, archives=archives, bpe_tokens=120)


def member_lines(archive: Path, member: str) -> list[str]:
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(member)
        assert stream is not None
        data = stream.read()
    if member.endswith(".gz"):
        import gzip

        data = gzip.decompress(data)
    text = data.decode(errors="replace").replace("\r\n", "\n")
    return text.removesuffix("\n").split("\n")


def segment_lines(archive: Path, member: str) -> list[str]:
    """White space apart, as sacreBLEU extracts them, with whose test sets scores are compared."""
    found = [line for line in member_lines(archive, member) if "<seg id" in line]
    found = [line.split(">", 1)[1].split("</seg>")[0].strip() for line in found]
    with tempfile.TemporaryDirectory() as folder:
        sgm, text = Path(folder) / "sgm", Path(folder) / "text"
        sgm.write_text("\n".join(member_lines(archive, member)))
        FakeSGMLDataset("any")._convert_format(str(sgm), str(text))
        assert [" ".join(line.split()) for line in found] == lines_of(text)
    return found


def plain_apostrophes(lines):
    return [line.replace("’", "'") for line in lines]


def tokenize(lines, language, *, hyphens=False, normalize=False):
    """sacremoses called directly."""
    normalizer = MosesPunctNormalizer(lang=language, perl_parity=True)
    if normalize:
        lines = [regex.sub(r"\p{C}", " ", normalizer.normalize(line)) for line in lines]
    tokenizer = MosesTokenizer(lang=language)
    return [
        tokenizer.tokenize(line, aggressive_dash_splits=hyphens, return_str=True) for line in lines
    ]


def is_kept(pair, ratio, low, high):
    counts = [len(line.split()) for line in pair]
    return min(counts) >= low and max(counts) <= high and max(counts) / min(counts) <= ratio


def learn(lines, merges):
    codes = io.StringIO()
    learn_bpe(io.StringIO("".join(f"{line}\n" for line in lines)), codes, merges)
    return codes


def columns(pairs):
    return [list(column) for column in zip(*pairs, strict=True)]


def check_texts(output: Path, folder: str, name: str, languages, expected) -> None:
    for language, column in zip(languages, expected, strict=True):
        assert lines_of(output / folder / f"{name}.{language}") == column, (folder, name, language)


def test_iwslt14_cleans_tokens_then_cuts_valid_then_splits(iwslt14, tmp_path, quick_binarize):
    output, languages = tmp_path / "out", ("de", "en")
    corpus = published(load_corpus("iwslt14-de-en"))
    prepare(corpus, output, workers=1, archives=iwslt14)

    raw, tokens = [], []
    for language in languages:
        lines = member_lines(iwslt14 / "de-en.tgz", f"de-en/train.tags.de-en.{language}")
        lines = [
            line.replace("<title>", "").replace("</title>", "")
            .replace("<description>", "").replace("</description>", "").strip()
            for line in lines
            if not any(tag in line for tag in ("<url>", "<talkid>", "<keywords>"))
        ]  # fmt: skip
        raw.append(lines)
        tokens.append(tokenize(lines, language))
    rows = [row for row in zip(*tokens, *raw, strict=True) if min(map(len, row[:2]))]
    rows = [row for row in rows if is_kept(row[:2], 1.5, 1, 175)]
    assert 23 < len(rows) < 200  # the test corpus has pairs of both kinds
    rows = [(row[0].lower(), row[1].lower(), *row[2:]) for row in rows]
    valid = columns(rows[22::23])
    train = columns(row for number, row in enumerate(rows, 1) if number % 23)
    test_raw = [
        [
            line
            for part in ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
            for line in segment_lines(
                iwslt14 / "de-en.tgz", f"de-en/IWSLT14.{part}.de-en.{language}.xml"
            )
        ]
        for language in languages
    ]
    assert len(test_raw[0]) == 30
    test = [
        [line.lower() for line in tokenize(plain_apostrophes(lines), language)]
        for lines, language in zip(test_raw, languages, strict=True)
    ]
    for name, expected in (("train", train[:2]), ("valid", valid[:2]), ("test", test)):
        check_texts(output, "tokenized", name, languages, expected)
        codes = learn(train[0] + train[1], 120)
        split = [[BPE(codes).segment(line) for line in column] for column in expected]
        check_texts(output, "bpe", name, languages, split)
    check_texts(output, "raw", "valid", languages, valid[2:])
    check_texts(output, "raw", "test", languages, test_raw)


@pytest.mark.parametrize(
    ("name", "variant", "target", "every", "files"),
    [
        ("wmt14-en-de", None, "de", 100, ["europarl-v7", "commoncrawl", "nc-v12"]),
        ("wmt14-en-de", "icml17", "de", 100, ["europarl-v7", "commoncrawl", "nc-v9"]),
        ("wmt14-en-fr", None, "fr", 1333, ["europarl-v7", "commoncrawl", "un", "nc-v9", "giga"]),
    ],
)
def test_wmt14_cuts_valid_then_splits_then_cleans_subwords(
    wmt14, tmp_path, quick_binarize, name, variant, target, every, files
):
    output, languages = tmp_path / "out", ("en", target)
    corpus = published(load_corpus(name, variant))
    prepare(corpus, output, workers=2, archives=wmt14)

    members = {
        "europarl-v7": f"training/europarl-v7.{target}-en.{{}}",
        "commoncrawl": f"commoncrawl.{target}-en.{{}}",
        "un": f"un/undoc.2000.{target}-en.{{}}",
        "nc-v9": f"training/news-commentary-v9.{target}-en.{{}}",
        "nc-v12": f"training/news-commentary-v12.{target}-en.{{}}",
        "giga": "giga-fren.release2.fixed.{}.gz",
    }
    raw = []
    for language in languages:
        raw.append([])
        for key in files:
            archive = "training-giga-fren.tar" if key == "giga" else f"training-parallel-{key}.tgz"
            raw[-1] += member_lines(wmt14 / archive, members[key].format(language))
    assert any("\ufffd" in line for line in raw[0])
    tokens = [
        tokenize(lines, language, hyphens=True, normalize=True)
        for lines, language in zip(raw, languages, strict=True)
    ]
    rows = list(zip(*tokens, *raw, strict=True))
    valid = columns(rows[every - 1 :: every])
    train = columns(row for number, row in enumerate(rows, 1) if number % every)
    check_texts(output, "tokenized", "train", languages, train[:2])
    check_texts(output, "tokenized", "valid", languages, valid[:2])
    codes = learn(train[0] + train[1], 120)
    for name_, expected in (("train", train), ("valid", valid)):
        split = [[BPE(codes).segment(line) for line in column] for column in expected[:2]]
        kept = [
            row for row in zip(*split, *expected[2:], strict=True)
            if all(row[:2]) and is_kept(row[:2], 1.5, 1, 250)
        ]  # fmt: skip
        assert 0 < len(kept) < len(split[0]) or name_ == "valid"
        check_texts(output, "bpe", name_, languages, columns(kept)[:2])
        if name_ == "valid":
            check_texts(output, "raw", name_, languages, columns(kept)[2:])
    # The test set is neither normalised nor cleaned.
    pair = {"de": "deen", "fr": "fren"}[target]
    for role, language in zip(("src", "ref"), languages, strict=True):
        text = segment_lines(
            wmt14 / "test-full.tgz", f"test-full/newstest2014-{pair}-{role}.{language}.sgm"
        )
        assert lines_of(output / "raw" / f"test.{language}") == text
        plain = tokenize(plain_apostrophes(text), language, hyphens=True)
        assert lines_of(output / "tokenized" / f"test.{language}") == plain
        assert any("—" in line for line in plain) and all("’" in line for line in text)


def test_other_numbers_of_lines_than_published_are_named(wmt14, tmp_path, quick_binarize, caplog):
    corpus = replace(published(load_corpus("wmt14-en-de")), published_lines={"test": 15})
    prepare(corpus, tmp_path / "same", workers=1, archives=wmt14)
    assert "published settings" not in caplog.text
    corpus = replace(corpus, published_lines=load_corpus("wmt14-en-de").published_lines)
    prepare(corpus, tmp_path / "other", workers=1, archives=wmt14)
    assert "test has 15 sentence pairs, with the published settings 3,003" in caplog.text


def test_admin_recipe_takes_newstest2013_whole_and_cleans_words(wmt14, tmp_path, quick_binarize):
    corpus = published(load_corpus("wmt14-en-de", "admin"))
    prepare(corpus, tmp_path / "out", workers=1, archives=wmt14)
    expected = tokenize(
        member_lines(wmt14 / "dev.tgz", "dev/newstest2013.de"), "de", hyphens=True, normalize=True
    )
    assert lines_of(tmp_path / "out" / "tokenized" / "valid.de") == expected
    lines = json.loads((tmp_path / "out/data-bin/preparation.json").read_text())["lines"]
    assert lines["valid"] == 20
    assert all(lines_of(tmp_path / "out" / "tokenized" / "train.de"))


# -- one small corpus of local files for the rest ---------------------------------------------------

SMALL = Corpus(
    name="custom",
    languages=("de", "en"),
    tokenizer_langs=("de", "en"),
    sources={name: (Source(name + ".{lang}"),) for name in ("train", "valid", "test")},
    archives={},
    cleaning=Cleaning("after_bpe", 2.0, 1, 30),
    bpe_tokens=60,
)


def binarized_count(path: Path) -> int:
    """Number of sentences in fairseq's index: magic 9 bytes, version 8, type 1, then the count."""
    return struct.unpack("<Q", path.read_bytes()[18:26])[0]


def test_the_prepared_folder_is_complete_and_true(custom, tmp_path, caplog):
    """With the real fairseq-preprocess, and lines that must not shift those behind them."""
    caplog.set_level("INFO")
    for path in custom.values():
        odd = ODD_LINES if path.suffix == ".de" else ODD_LINES[::-1]
        path.write_bytes(path.read_bytes() + "".join(f"{line}\n" for line in odd).encode())
    data = prepare(SMALL, tmp_path / "out", workers=2, files=custom)
    content = json.loads((data / "preparation.json").read_text())
    for name, count in content["lines"].items():
        for language in ("de", "en"):
            assert binarized_count(data / f"{name}.de-en.{language}.idx") == count
            assert len(lines_of(tmp_path / "out" / "bpe" / f"{name}.{language}")) == count
            if name != "train":
                raw = data / content["raw"][name][language]
                assert raw.read_bytes() == custom[f"{name}.{language}"].read_bytes()
                assert (tmp_path / "out" / "raw" / raw.name).read_bytes() == raw.read_bytes()
    assert content["lines"]["valid"] == 12 + len(ODD_LINES)
    for language in ("de", "en"):
        assert f"fairseq-preprocess: [{language}] Dictionary: " in caplog.text
    # What the bar goes by.
    total = sum(map(binarize._num_subwords, (tmp_path / "out" / "bpe").iterdir()))
    assert 0 <= total - binarize._num_written(data) <= 6 * len(ODD_LINES)
    assert f"{custom['test.de']}, line 10 is empty: it is kept as it is" in caplog.text
    assert set(content["inputs"]) == set(custom)
    assert {"codes", "dict.de.txt", "dict.en.txt", "train.de-en.de.bin"} <= set(content["outputs"])
    present = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
    assert present == set(content["outputs"]) | {"preparation.json"}
    for name, digest in content["outputs"].items():
        assert pipeline.sha256(data / name) == digest
    assert (
        read_preparation(data).raw["test"]["en"] == data / "raw" / "test.en"
    )  # `admin-nmt evaluate`
    text = TextPipeline.load(data)
    for raw, split in zip(
        lines_of(custom["test.de"]), lines_of(tmp_path / "out/bpe/test.de"), strict=True
    ):
        assert text.encode(raw) == split
    assert (data / "dict.de.txt").read_bytes() != (data / "dict.en.txt").read_bytes()


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(custom, tmp_path, monkeypatch):
    """With the real fairseq-preprocess; chunks are small, so that workers really share the text."""
    monkeypatch.setattr(pipeline, "CHUNK_LINES", 7)
    joined = replace(SMALL, joined_dictionary=True)
    for workers in (1, 3):
        prepare(joined, tmp_path / str(workers), workers=workers, files=custom)
    one, three = snapshot(tmp_path / "1"), snapshot(tmp_path / "3")
    assert one.keys() == three.keys()
    assert [name for name in one if one[name] != three[name]] == []
    assert one["data-bin/dict.de.txt"] == one["data-bin/dict.en.txt"]


def test_finished_steps_are_skipped_and_interrupted_ones_leave_nothing(
    custom, tmp_path, quick_binarize, monkeypatch
):
    output = tmp_path / "out"
    real, calls = bpe.split, []

    def interrupted(line, path):
        calls.append(line)
        if len(calls) > 100:
            raise KeyboardInterrupt
        return real(line, path)

    monkeypatch.setattr(bpe, "split", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(SMALL, output, workers=1, files=custom)
    assert list((output / "bpe").iterdir()) == list((output / "raw").iterdir()) == []
    assert not (output / "data-bin").exists()
    before = {path: path.stat().st_mtime_ns for path in (output / "tokenized").iterdir()}
    assert len(before) == 10

    monkeypatch.setattr(bpe, "split", real)
    (output / "bpe" / ".train.de.killed.tmp").write_text("half")  # what a killed process leaves
    prepare(SMALL, output, workers=1, files=custom)
    assert {path: path.stat().st_mtime_ns for path in (output / "tokenized").iterdir()} == before
    assert not (output / "bpe" / ".train.de.killed.tmp").exists()
    prepare(SMALL, tmp_path / "fresh", workers=1, files=custom)
    assert snapshot(output) == snapshot(tmp_path / "fresh")

    for path in (output / "tokenized").iterdir():
        path.unlink()  # to save disk space; the result does not need it
    monkeypatch.setattr(pipeline.PreparationRun, "_run_step", None)
    prepare(SMALL, output, workers=1, files=custom)


def test_a_damaged_output_is_made_again(custom, tmp_path, quick_binarize):
    output = tmp_path / "out"
    prepare(SMALL, output, workers=1, files=custom)
    before = snapshot(output)
    (output / "codes").write_text("#version: 0.2\n")
    (output / "data-bin" / "test.en.bin").unlink()
    prepare(SMALL, output, workers=1, files=custom)
    assert snapshot(output) == before


def test_other_settings_are_refused_by_name_and_change_nothing(custom, tmp_path, quick_binarize):
    output = tmp_path / "out"
    prepare(SMALL, output, workers=1, files=custom)
    before = snapshot(output)
    other = replace(SMALL, bpe_tokens=61, cleaning=replace(SMALL.cleaning, ratio=3.0))
    with pytest.raises(UserError) as error:
        prepare(other, output, workers=1, files=custom)
    assert "bpe_tokens is 60 there and 61 now; clean_ratio is 2.0 there and 3.0 now" in str(
        error.value
    )
    assert snapshot(output) == before


@pytest.mark.parametrize("damage", ["{", "[]", '{"settings": [], "steps": {}, "inputs": {}}'])
def test_a_damaged_state_is_said_to_be_so(tmp_path, damage):
    (tmp_path / "state.json").write_text(damage)
    with pytest.raises(UserError, match=rf"state\.json is .*; delete {tmp_path}$"):
        State(tmp_path, {})


def test_changed_input_is_refused_by_name(custom, tmp_path, quick_binarize):
    prepare(SMALL, tmp_path / "out", workers=1, files=custom)
    custom["valid.en"].write_text("new\n" * 12)
    with pytest.raises(UserError, match=r"valid\.en has changed since .* was made"):
        prepare(SMALL, tmp_path / "out", workers=1, files=custom)


def test_after_a_first_run_that_failed_settings_and_files_may_be_mended(
    custom, tmp_path, quick_binarize
):
    custom["train.de"].write_bytes(custom["train.de"].read_bytes() + b"one more\n")
    with pytest.raises(UserError, match=r"train\.de has 91, .*train\.en has 90"):
        prepare(SMALL, tmp_path / "out", workers=1, files=custom)
    custom["train.en"].write_bytes(custom["train.en"].read_bytes() + b"one more\n")
    prepare(replace(SMALL, bpe_tokens=50), tmp_path / "out", workers=1, files=custom)


def test_foreign_and_busy_folders_are_left_alone(custom, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty and was not made by admin-nmt prepare"):
        prepare(SMALL, tmp_path / "mine", workers=1, files=custom)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    (tmp_path / "busy").mkdir()
    with (
        locked(tmp_path / "busy" / ".lock", tmp_path / "busy"),
        pytest.raises(UserError, match=r"another run of admin-nmt is at work in .*busy"),
    ):
        prepare(SMALL, tmp_path / "busy", workers=1, files=custom)
    with pytest.raises(UserError, match=r"cannot write to directory .*thesis\.tex/out"):
        prepare(SMALL, tmp_path / "mine" / "thesis.tex" / "out", workers=1, files=custom)


@pytest.mark.parametrize("blank", [" \t", "\x00 \x01"])
def test_a_corpus_can_refuse_empty_lines_in_valid_and_test_with_their_number(
    custom, tmp_path, blank
):
    lines = custom["test.en"].read_text().splitlines()
    lines[4] = blank
    custom["test.en"].write_text("\n".join(lines) + "\n")
    strict = replace(SMALL, refuse_empty=True)
    with pytest.raises(UserError, match=r"test\.en, line 5 is empty"):
        prepare(strict, tmp_path / "out", workers=1, files=custom)


@pytest.mark.parametrize("when", ["before_bpe", "after_bpe"])
def test_a_corpus_that_cleaning_empties_is_refused(custom, tmp_path, quick_binarize, when):
    nothing = replace(SMALL, cleaning=Cleaning(when, 2.0, 29, 30))
    with pytest.raises(UserError, match="no sentence pair of train is left of 90 after cleaning"):
        prepare(nothing, tmp_path / "out", workers=1, files=custom)


def test_too_few_lines_for_a_cut_valid_set_are_refused(custom, tmp_path, quick_binarize):
    cut = replace(SMALL, sources={"train": SMALL.sources["train"]}, valid_every=1000)
    with pytest.raises(UserError, match="valid is empty: it takes every 1000th training pair"):
        prepare(cut, tmp_path / "out", workers=1, files=custom)


def test_unknown_language_is_refused_before_any_work(custom, tmp_path):
    with pytest.raises(UserError, match="knows no language 'xx'"):
        prepare(
            replace(SMALL, tokenizer_langs=("de", "xx")), tmp_path / "out", workers=1, files=custom
        )
    assert not (tmp_path / "out" / "tokenized").exists()


def test_the_rules_of_another_language_can_be_borrowed(custom, tmp_path, quick_binarize):
    for name in ("train", "valid", "test"):
        custom[f"{name}.xx"] = custom.pop(f"{name}.de")
    borrowed = replace(SMALL, languages=("xx", "en"), tokenizer_langs=("de", "en"))
    data = prepare(borrowed, tmp_path / "out", workers=1, files=custom)
    raw = lines_of(data / "raw" / "test.xx")
    assert lines_of(tmp_path / "out" / "tokenized" / "test.xx") == tokenize(raw, "de")
    assert TextPipeline.load(data).encode(raw[0]) == lines_of(tmp_path / "out/bpe/test.xx")[0]


def test_a_full_disk_is_one_line_and_nothing_is_half_written(
    custom, tmp_path, quick_binarize, monkeypatch
):
    def full(streams, texts):
        raise OSError(errno.ENOSPC, "No space left on device")

    real = pipeline.write_columns
    monkeypatch.setattr(pipeline, "write_columns", full)
    with pytest.raises(UserError, match=r"cannot write .*/tokenized/.*: No space left on device"):
        prepare(SMALL, tmp_path / "out", workers=1, files=custom)
    assert list((tmp_path / "out" / "tokenized").iterdir()) == []
    monkeypatch.setattr(pipeline, "write_columns", real)
    monkeypatch.setattr(pipeline.shutil, "copytree", full)
    with pytest.raises(UserError, match="No space left on device"):
        prepare(SMALL, tmp_path / "out", workers=1, files=custom)
    assert not list((tmp_path / "out").glob("*data-bin*"))


def test_text_is_binarised_from_a_folder_of_any_name(tmp_path, monkeypatch, caplog):
    """With the real fairseq-preprocess, which splits prefixes at commas; a module in the folder of the
    text is not imported."""
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    text, data = Path("a, b"), Path("c, d")
    for folder in (text, data):
        folder.mkdir()
    for name, language in itertools.product(("train", "valid", "test"), ("de", "py")):
        (text / f"{name}.{language}").write_text("raise SystemExit\n" * 3)
    (text / "fairseq_cli.py").write_text("raise SystemExit\n")
    binarize.binarize(
        text, ("de", "py"), ["train", "valid", "test"], data, joined_dictionary=False, workers=1
    )
    for name, language in itertools.product(("train", "valid", "test"), ("de", "py")):
        assert binarized_count(data / f"{name}.de-py.{language}.idx") == 3
        said = f"fairseq-preprocess: [{language}] {text / name}.{language}: 3 sents, 9 tokens, "
        assert said in caplog.text
    assert "fairseq-preprocess: [de] Dictionary: 8 types" in caplog.text


def test_fairseq_preprocess_ends_with_an_interrupted_preparation(tmp_path, monkeypatch):
    """With its workers; it gets no interrupt itself where one process alone is told of it."""
    running = tmp_path / "running"
    (tmp_path / "stub" / "fairseq_cli").mkdir(parents=True)
    (tmp_path / "stub" / "fairseq_cli" / "__init__.py").touch()
    (tmp_path / "stub" / "fairseq_cli" / "preprocess.py").write_text(
        "import os, time\n"
        "from multiprocessing import Pool\n"
        "def work():\n"
        f"    with open({str(running)!r}, 'w') as stream:\n"
        "        stream.write(f'{os.getppid()} {os.getpid()} ')\n"
        "    time.sleep(100)\n"
        "def cli_main():\n"
        "    pool = Pool(1)\n"
        "    pool.apply_async(work)\n"
        "    pool.close()\n"
        "    pool.join()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))

    def interrupt_once_it_runs():
        if running.exists() and running.read_text().endswith(" "):
            raise KeyboardInterrupt

    command = [sys.executable, "-P", "-c", binarize._PROGRAM]
    with pytest.raises(KeyboardInterrupt):
        binarize._run(command, tmp_path, interrupt_once_it_runs)
    for number in running.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)


def test_a_failing_fairseq_preprocess_is_one_line(custom, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(UserError, match=r"fairseq-preprocess failed \(status 1\)"):
        prepare(SMALL, tmp_path / "out", workers=1, files=custom)
    assert not list((tmp_path / "out").glob("*data-bin*"))


def test_published_checksums_are_checked_before_any_work(iwslt14, tmp_path):
    corpus = load_corpus("iwslt14-de-en")
    wrong = replace(
        corpus, archives={"de-en.tgz": Archive("de-en.tgz", "http://x", "md5:" + "0" * 32)}
    )
    with pytest.raises(
        UserError, match=r"de-en\.tgz has md5 checksum \w{32}, but 0{32} is expected"
    ):
        prepare(wrong, tmp_path / "out", workers=1, archives=iwslt14)
    with pytest.raises(UserError, match=r"lacks de-en\.tgz"):
        prepare(corpus, tmp_path / "out", workers=1, archives=tmp_path)


def test_unpublished_checksums_are_recorded_and_reported(iwslt14, tmp_path, quick_binarize, caplog):
    corpus = replace(load_corpus("iwslt14-de-en"), bpe_tokens=50)
    data = prepare(corpus, tmp_path / "out", workers=1, archives=iwslt14)
    known = json.loads((data / "preparation.json").read_text())["inputs"]["de-en.tgz"]
    assert known["sha256"] == pipeline.sha256(iwslt14 / "de-en.tgz")
    assert known["published_checksum"] is None
    assert f"recorded sha256 {known['sha256']}" in caplog.text
    (iwslt14 / "de-en.tgz").unlink()  # finished steps need no archives
    prepare(corpus, tmp_path / "out", workers=1, archives=iwslt14)


def test_changed_archives_of_a_finished_folder_are_refused(
    iwslt14, tmp_path, quick_binarize, monkeypatch
):
    """A file is read again only where its size or time differ; one that is gone is not missed."""
    name, output = "de-en.tgz", tmp_path / "out"
    corpus = published(load_corpus("iwslt14-de-en"))
    prepare(corpus, output, workers=1, archives=iwslt14)
    archive, read = iwslt14 / name, []
    sha256 = pipeline.sha256
    monkeypatch.setattr(
        "admin_nmt.data.state.sha256", lambda path: read.append(path) or sha256(path)
    )
    prepare(corpus, output, workers=1, archives=iwslt14)
    assert read == []
    os.utime(archive, (1, 1))
    for _ in range(2):
        prepare(corpus, output, workers=1, archives=iwslt14)
        assert read == [archive]

    def with_checksum(checksum):
        found = corpus.archives[name]
        return replace(corpus, archives={name: Archive(name, found.url, checksum)})

    other = "sha256:" + "0" * 64
    prepare(with_checksum(f"sha256:{sha256(archive)}"), output, workers=1, archives=iwslt14)
    with pytest.raises(UserError, match=rf"checksum of de-en\.tgz has changed since .*{other} now"):
        prepare(with_checksum(other), output, workers=1, archives=iwslt14)
    with pytest.raises(UserError, match=r"de-en\.tgz has md5 checksum"):
        prepare(with_checksum("md5:" + "0" * 32), output, workers=1, archives=iwslt14)
    archive.write_bytes(archive.read_bytes()[::-1])
    with pytest.raises(
        UserError, match=r"de-en\.tgz has changed since .* was made from it \(sha256"
    ):
        prepare(corpus, output, workers=1, archives=iwslt14)
    shutil.rmtree(output / "tokenized")  # what is not needed any more
    with pytest.raises(UserError, match=r"de-en\.tgz has changed since"):
        prepare(corpus, output, workers=1, archives=iwslt14)
    archive.unlink()
    prepare(corpus, output, workers=1, archives=iwslt14)
