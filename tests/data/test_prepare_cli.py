"""`admin-nmt prepare` and the scripts over it, as users call them."""

import gzip
import json
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from admin_nmt.cli.main import main
from admin_nmt.data.corpus_files import corpus_names
from admin_nmt.data.text_pipeline import TextPipeline
from admin_nmt.errors import UserError
from admin_nmt.files import locked
from tests.support.programs import BIN

ROOT = Path(__file__).parents[2]
MULTI30K = Path(os.environ.get("ADMIN_NMT_MULTI30K", "/nowhere"))
needs_multi30k = pytest.mark.skipif(
    not (MULTI30K / "train.de.gz").exists(),
    reason="ADMIN_NMT_MULTI30K does not name the folder of the Multi30k archives",
)


def run(*command: object, **kwargs) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True, text=True, timeout=600, env=env, **kwargs,
    )  # fmt: skip


def fails(capsys, *options: object) -> tuple[int, str]:
    """Exit code and the only line on stderr of a call in this process."""
    code = main(["prepare", *map(str, options)])
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("admin-nmt prepare: error: ")]
    assert len(errors) == 1, lines
    assert "Traceback" not in "".join(lines)
    return code, errors[0].removeprefix("admin-nmt prepare: error: ")


def test_wrong_command_lines_are_one_line_with_exit_code_2(custom, tmp_path, capsys):
    folder, out = custom["train.de"].parent, ["--output", tmp_path / "out"]
    pair = ["--source-lang", "de", "--target-lang", "en"]
    good = ["custom", "--corpus", folder, *pair, *out]
    cases = [
        (["wmt99", *out], "unknown corpus 'wmt99'"),
        (["multi30k", "--icml17", *out], "corpus multi30k has no variant 'icml17': it has none"),
        (["wmt14-en-de", "--icml17", "--variant", "admin", *out], "exclude each other"),
        (["multi30k", "--trainpref", "x", *out], "--trainpref goes with custom only"),
        (["multi30k", "--corpus", "x", *out], "--corpus goes with custom only"),
        (["custom", "--corpus", folder, *out], "needs --source-lang and --target-lang"),
        (["custom", *pair, *out], "custom needs --corpus DIR, or --trainpref"),
        (["custom", "--trainpref", "x", *pair, *out], "one of --validpref and --valid-every"),
        (["custom", "--corpus", tmp_path / "no", *pair, *out], "no is not a folder"),
        ([*good, "--trainpref", "x"], "--corpus excludes --trainpref"),
        ([*good, "--archives", "x"], "do not go with custom"),
        ([*good, "--workers", 0], "--workers must be at least 1, not 0"),
        ([*good, "--bpe-tokens", 0], "bpe_tokens (BPE merges) must be at least 1, not 0"),
        ([*good, "--clean-ratio", 0.2], "ratio must be at least 1, not 0.2"),
        (
            [*good, "--min-length", 5, "--max-length", 4],
            "1 <= min_length <= max_length, not 5 and 4",
        ),
        (
            [*good, "--tokenizer-lang", "fr=en"],
            "--tokenizer-lang fr=en: write LANG=LANG with de or",
        ),
        ([*good[:-2], "--target-lang", "de", *out], "source and target language are both 'de'"),
    ]
    for options, message in cases:
        code, line = fails(capsys, *options)
        assert message in line
        assert code == 2, line
    assert not (tmp_path / "out").exists()


def test_bad_files_are_one_line_with_exit_code_1(custom, tmp_path, capsys):
    folder = custom["train.de"].parent
    good = ["custom", "--corpus", folder, "--source-lang", "de", "--target-lang", "en"]
    out = ["--output", tmp_path / "out", "--workers", 1]
    custom["test.de"].rename(folder / "away")
    assert fails(capsys, *good, *out) == (1, f"file not found: {folder / 'test.de'}")
    (folder / "away").rename(folder / "test.de")
    custom["train.en"].write_bytes(b"ok\nM\xfcnchen\n")
    code, line = fails(capsys, *good, *out)
    assert (code, line[: len(str(folder))]) == (1, str(folder))
    assert "train.en, line 2: not UTF-8 text" in line
    code, line = fails(capsys, *good[:4], "xx", *good[5:], *out)
    assert (code, "xx" in line) == (1, True)
    code, line = fails(capsys, "iwslt14-de-en", "--archives", folder, *out)
    assert (code, "lacks de-en.tgz (from http://" in line) == (1, True)


def test_a_file_system_that_is_full_for_real(custom, tmp_path):
    """The shell's limit on file sizes stops the write in the middle, as a full disk does."""
    for language in ("de", "en"):
        path = custom[f"train.{language}"]
        path.write_bytes(path.read_bytes() * 40)
    command = f"ulimit -f 30; exec {BIN}/admin-nmt prepare custom --source-lang de --target-lang en"
    command += f" --corpus {custom['train.de'].parent} --output {tmp_path}/out"
    result = run("bash", "-c", command)
    assert result.returncode == 1
    assert re.fullmatch(
        r"admin-nmt prepare: error: cannot write .*/tokenized/.*: File too large\n", result.stderr
    )
    assert list((tmp_path / "out" / "tokenized").iterdir()) == []


def wait_for_half_files(folder: Path, process: subprocess.Popen) -> None:
    """Until a step of `process` is in the middle of writing to `folder`."""
    deadline = time.monotonic() + 600
    while not any(path.stat().st_size for path in folder.glob(".*.tmp")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_lock(folder):
    """Until no process of another run has it."""
    end = time.monotonic() + 600
    while True:
        try:
            with locked(folder / ".lock", folder):
                return
        except UserError:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_an_interrupt_is_one_line_and_leaves_no_half_files(custom, tmp_path):
    for language in ("de", "en"):
        path = custom[f"train.{language}"]
        path.write_bytes(path.read_bytes() * 5000)
    command = [BIN / "admin-nmt", "prepare", "custom", "--corpus", custom["train.de"].parent]
    command += ["--source-lang", "de", "--target-lang", "en", "--output", tmp_path / "out"]
    # Where a shell runs the tests in its background, they and what they start would ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        list(map(str, [*command, "--workers", "2"])),
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    folder = tmp_path / "out" / "tokenized"
    try:
        wait_for_half_files(folder, process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and workers
        _, errors = process.communicate(timeout=600)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, errors) == (130, "admin-nmt prepare: interrupted\n")
    assert list(folder.iterdir()) == []


def test_a_killed_run_leaves_no_workers_and_is_taken_up_again(custom, tmp_path):
    small = {language: custom[f"train.{language}"].read_bytes() for language in ("de", "en")}
    for language, data in small.items():
        custom[f"train.{language}"].write_bytes(data * 5000)
    command = [BIN / "admin-nmt", "prepare", "custom", "--corpus", custom["train.de"].parent]
    command += ["--source-lang", "de", "--target-lang", "en", "--output", tmp_path / "out"]
    process = subprocess.Popen(list(map(str, [*command, "--workers", "2"])))
    try:
        wait_for_half_files(tmp_path / "out" / "tokenized", process)
    finally:
        process.kill()
        process.wait()
    wait_for_lock(tmp_path / "out")  # the workers look for their parent twice a second
    assert list((tmp_path / "out" / "tokenized").glob(".*.tmp"))
    for language, data in small.items():
        custom[f"train.{language}"].write_bytes(data)
    result = run(*command)
    assert result.returncode == 0, result.stderr
    assert not list((tmp_path / "out").rglob(".*.tmp"))


def test_each_script_prepares_its_corpus():
    scripts = {path.name: path for path in (ROOT / "data_prep").glob("*.sh")}
    assert set(scripts) == {f"prepare-{name}.sh" for name in [*corpus_names(), "custom"]}
    for name, path in scripts.items():
        corpus = name.removeprefix("prepare-").removesuffix(".sh")
        assert f"exec admin-nmt prepare {corpus} --output" in path.read_text()


def test_a_script_passes_its_options_on(iwslt14, tmp_path):
    """IWSLT14 from an archive on disk to data-bin, with no network."""
    result = run(
        "bash", ROOT / "data_prep" / "prepare-iwslt14-de-en.sh", "--archives", iwslt14,
        "--bpe-tokens", 60, "--no-lowercase", "--joined-dictionary", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    data = tmp_path / "prepared" / "iwslt14-de-en" / "data-bin"
    content = json.loads((data / "preparation.json").read_text())
    assert content["lowercase"] is False
    assert content["joined_dictionary"] is True
    assert content["bpe"]["merges"] <= 60
    assert content["lines"]["test"] == 30
    assert (data / "dict.de.txt").read_bytes() == (data / "dict.en.txt").read_bytes()
    assert "Hund" in (tmp_path / "prepared/iwslt14-de-en/tokenized/train.de").read_text()


@needs_multi30k
@pytest.mark.multi30k
def test_multi30k_end_to_end(tmp_path):
    """2,000 real training pairs, gzip and plain files mixed, through the front door."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, ours in (("train", "train"), ("val", "valid"), ("test_2016_flickr", "test")):
        for language in ("de", "en"):
            data = gzip.decompress((MULTI30K / f"{name}.{language}.gz").read_bytes())
            data = b"".join(data.splitlines(keepends=True)[:2000])
            if language == "de":
                (corpus / f"{ours}.de").write_bytes(data)
            else:
                (corpus / f"{ours}.en.gz").write_bytes(gzip.compress(data))
    result = run(
        BIN / "admin-nmt", "prepare", "custom", "--source-lang", "de", "--target-lang", "en",
        "--trainpref", corpus / "train", "--validpref", corpus / "valid",
        "--testpref", corpus / "test", "--bpe-tokens", 1000, "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    data = tmp_path / "out" / "data-bin"
    content = json.loads((data / "preparation.json").read_text())
    assert content["lines"] == {"train": 2000, "valid": 1014, "test": 1000}
    assert (data / "raw" / "test.de").read_bytes() == (corpus / "test.de").read_bytes()
    text = TextPipeline.load(data)
    raw = gzip.decompress((corpus / "test.en.gz").read_bytes()).decode().split("\n")[:-1]
    split = (tmp_path / "out" / "bpe" / "test.en").read_text().split("\n")[:-1]
    assert [text.subwords.split(text.target(line)) for line in raw] == split
    # Detokenisation restores nearly all lines; text with spaces in odd places comes back otherwise.
    same = sum(text.decode(line) == line_raw for line, line_raw in zip(split, raw, strict=True))
    assert same > 0.95 * len(raw)


@needs_multi30k
@pytest.mark.multi30k
@pytest.mark.slow
def test_multi30k_archives_have_their_published_checksums(tmp_path):
    result = run(
        "bash", ROOT / "data_prep/prepare-multi30k.sh", "--archives", MULTI30K,
        "--bpe-tokens", 300, "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "out/data-bin/preparation.json").read_text())
    assert content["lines"] == {"train": 29000, "valid": 1014, "test": 1000}
    for known in content["inputs"].values():
        assert known["published_checksum"] == f"sha256:{known['sha256']}"
