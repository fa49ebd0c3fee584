"""`admin-nmt backtranslate`: genuine and translated pairs in one folder, tagged, resumed, trained on."""

import json
import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fairseq.data import Dictionary

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.cli.main import main
from admin_nmt.data.data_folder import joined_subsets, num_sentences
from admin_nmt.errors import UsageError, UserError
from admin_nmt.export import load_translator
from admin_nmt.export.search import Sampling, Search
from admin_nmt.json_files import write_json
from admin_nmt.synthetic_data import back_translate
from admin_nmt.synthetic_data.back_translation import _add_tag
from tests.support.binarised import read_pairs
from tests.support.read_only import read_only_copy, require_writable
from tests.support.training import train

DryRun = Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]

#: In German, which `exported` translates to English; the model to be trained would translate to German.
LINES = [
    "Hund sieht Haus.",
    "",
    "Katze schläft.",
    "Hund sieht Haus.",
    "Straße grün Straße. " * 20,
    "Hund.",
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "mono.de"
    path.write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return path


def pairs(data: Path, subset: str) -> list[tuple[str, str]]:
    """English and German."""
    return read_pairs(data, subset, "en", "de")


def test_translated_pairs_stand_beside_the_genuine_ones(
    prepared: Path,
    exported: Path,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    data, out = prepared / "data-bin", tmp_path / "out"
    command = [
        "backtranslate",
        str(exported),
        str(data),
        "--input",
        str(text),
        "--output",
        str(out),
    ]
    assert main([*command, "--threads", "1", "--ratio", "0.0005"]) == 0
    said = capsys.readouterr().out
    assert "3 pairs from 6 lines as train1" in said and "train with -s en -t de" in said
    assert "1 empty" in said and "1 too long" in said and "1 repeated" in said
    # 3 new pairs are 0.0005 of 6,000 genuine ones: each of the 2,000 three times.
    assert "--upsample-primary 3" in said
    translator = load_translator(exported, threads=1)
    assert translator.text is not None
    chosen = [LINES[0], LINES[2], LINES[5]]
    expected = list(translator.translate(chosen))
    found = pairs(out / "data-bin", "train1")
    assert [source.split(" ")[0] for source, _ in found] == ["<BT>"] * 3
    assert [translator.text.decode(source.removeprefix("<BT> ")) for source, _ in found] == expected
    assert [target for _, target in found] == [translator.text.encode(line) for line in chosen]
    assert pairs(out / "data-bin", "train") == pairs(data, "train")
    kept = json.loads((out / "back-translation.json").read_text())
    assert kept["upsample_primary"] == 3 and kept["num_genuine"] == 2000
    before = {path.relative_to(data) for path in data.rglob("*")}
    after = {path.relative_to(out / "data-bin") for path in (out / "data-bin").rglob("*")}
    assert {str(path) for path in after - before} == {
        f"train1.de-en.{language}.{kind}" for language in ("de", "en") for kind in ("bin", "idx")
    }
    # What `fairseq-train mixed/data-bin` does: genuine and translated pairs together.
    with caplog.at_level(logging.INFO):
        train(
            out / "data-bin", tmp_path / "run", 2, "-s", "en", "-t", "de", "--upsample-primary", "3"
        )
    read = {line.split()[-2] for line in caplog.messages if line.endswith(" examples")}
    assert read == {"2000", "3"}
    trained = Checkpoint.open(tmp_path / "run" / "checkpoint_last.pt")
    assert trained.num_updates == 2 and trained.languages == ("en", "de")


def test_a_folder_that_cannot_be_written_has_a_copy_that_can(
    prepared: Path, exported: Path, text: Path, tmp_path: Path
) -> None:
    data = read_only_copy(prepared / "data-bin", tmp_path / "data-bin")
    made = back_translate(exported, data, text, tmp_path / "out", threads=1).data
    require_writable(made)
    assert data.stat().st_mode & 0o777 == 0o555


@pytest.mark.parametrize("fillers", [0, 3])
def test_the_tag_takes_the_place_of_a_filler_or_a_new_one(fillers: int, tmp_path: Path) -> None:
    words = [f"wort{number} 7" for number in range(16)] + ["zwei\u2028zeilen 7"]
    words += [f"madeupword{number:04d} 0" for number in range(fillers)]
    for language in ("de", "en"):
        (tmp_path / f"dict.{language}.txt").write_text("\n".join(words) + "\n", encoding="utf-8")

    def load(language: str) -> Dictionary:
        return Dictionary.load(str(tmp_path / f"dict.{language}.txt"))

    place = _add_tag(tmp_path, ("de", "en"), "<BT>")
    assert load("en").symbols == load("de").symbols and load("en").index("<BT>") == place == 4 + 17
    assert len(load("en")) == 24  # as before, or the next multiple of eight
    assert _add_tag(tmp_path, ("de", "en"), "<BT>") == place  # in a second round it is there
    # With two vocabularies only the source has it.
    with (tmp_path / "dict.de.txt").open("a") as stream:
        stream.write("mehr 1\n")
    added = _add_tag(tmp_path, ("de", "en"), "<NEW>")
    assert load("en")[added] == "<NEW>" and "<NEW>" not in load("de").symbols


def test_it_goes_on_where_it_was_interrupted_and_refuses_other_work(
    prepared: Path,
    exported: Path,
    text: Path,
    tmp_path: Path,
    interrupt: Callable[[int], list[int]],
) -> None:
    data = prepared / "data-bin"
    calls = interrupt(2)
    search = Search(sampling=Sampling(seed=5), nbest=2)
    given = {"search": search, "threads": 1, "part_sentences": 2, "tag": None}
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        back_translate(exported, data, text, out, **given)
    assert not (out / "data-bin").exists()
    back_translate(exported, data, text, out, **given)
    assert calls == [2, 2, 2, 2]
    whole = back_translate(exported, data, text, tmp_path / "whole", **given)
    assert pairs(out / "data-bin", "train1") == pairs(whole.data, "train1")
    assert (whole.data / "dict.en.txt").read_bytes() == (data / "dict.en.txt").read_bytes()
    # A second round goes beside the first.
    assert back_translate(exported, whole.data, text, tmp_path / "2", threads=1).subset == "train2"
    with pytest.raises(UserError, match="holds translations with another search"):
        back_translate(exported, data, text, out, threads=1, part_sentences=2)
    text.write_text("Haus.\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds translations with another text"):
        back_translate(exported, data, text, out, **given)
    shutil.rmtree(out / "translations")  # as the message says
    back_translate(exported, data, text, out, **given)
    translator = load_translator(exported, threads=1)
    assert {german for _, german in pairs(out / "data-bin", "train1")} == {
        translator.text.encode("Haus.")
    }


def test_both_directions_and_other_languages_in_one_folder(
    prepared: Path, exported: Path, text: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data-bin"
    shutil.copytree(prepared / "data-bin", data)
    for path in data.glob("valid.de-en.*"):
        shutil.copy(path, data / path.name.replace("valid.de-en", "train.en-de"))
        shutil.copy(path, data / path.name.replace("valid.de-en", "train1.fr-en"))
    made = back_translate(exported, data, text, tmp_path / "out", threads=1)
    # What fairseq joins to `train` for `-s en -t de`.
    assert joined_subsets(made.data, "train", "en", "de") == ["train.en-de", "train1.en-de"]
    assert made.num_genuine == num_sentences(data, "valid", "de", "en")


def test_bad_input_is_one_line(prepared: Path, exported: Path, text: Path, tmp_path: Path) -> None:
    data = prepared / "data-bin"
    for options, message in (
        ({"tag": "a b"}, "--tag 'a b': give one word"),
        ({"ratio": 0.0}, "--ratio 0.0"),
        ({"clean_ratio": 0.5}, "--clean-ratio 0.5"),
    ):
        with pytest.raises(UsageError, match=message):
            back_translate(exported, data, text, tmp_path / "x", **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"cannot read .*nowhere: No such file"):
        back_translate(exported, data, tmp_path / "nowhere", tmp_path / "out", threads=1)
    text.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"mono\.de is empty: it must hold one sentence a line"):
        back_translate(exported, data, text, tmp_path / "out", threads=1)
    text.write_text("\n\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"no pair is left of the text \(2 empty\)"):
        back_translate(exported, data, text, tmp_path / "out", threads=1)
    assert not list((tmp_path / "out").glob("data-bin*"))


def test_the_script_calls_everything_in_turn(dry_run: DryRun, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    mixed = tmp_path / "out" / "mixed"
    (mixed / "data-bin").mkdir(parents=True)
    for name in ("reverse.pt", "mono.de"):
        (tmp_path / name).touch()
    write_json(
        mixed / "back-translation.json",
        {"source_lang": "en", "target_lang": "de", "upsample_primary": 4, "tag": None},
    )
    for language in ("de", "en"):
        (mixed / "data-bin" / f"dict.{language}.txt").write_text("word 1\n")
    test_set = mixed / "data-bin" / "test.de-en.de.idx"
    test_set.touch()
    files = ("reverse.pt", "data", "mono.de", "out")

    def run(*words: str) -> list[str]:
        done, calls = dry_run("backtranslate.sh", *words)
        assert done.returncode == 0, done.stderr
        return calls

    exports, translates, trains, averages, scores = run(
        *files, "--cpu", "--ratio", "2", "--no-tag", "--", "--max-epoch", "7"
    )
    assert exports == "admin-nmt export reverse.pt data --quantization int8 --output out/reverse"
    assert translates == (
        "admin-nmt backtranslate out/reverse data --input mono.de --output out/mixed --device cpu "
        "--sampling --ratio 2 --no-tag"
    )
    assert trains.startswith(
        "fairseq-train out/mixed/data-bin -s en -t de --upsample-primary 4 --cpu --save-dir out/checkpoints"
    )
    assert "--share-all-embeddings" in trains and trains.endswith(" --max-epoch 7")
    averages_last = "admin-nmt average --inputs out/checkpoints --num-epoch-checkpoints 5 --output out/averaged.pt"
    assert averages == averages_last
    assert scores.startswith("admin-nmt evaluate out/mixed/data-bin --path out/averaged.pt")
    # With separate dictionaries, fairseq shares no embeddings.
    (mixed / "data-bin" / "dict.de.txt").write_text("wort 1\n")
    # A training that validates has a best checkpoint.
    (tmp_path / "out" / "checkpoints").mkdir()
    for name in ("_best", *"12345"):
        (tmp_path / "out" / "checkpoints" / f"checkpoint{name}.pt").touch()
    refused, calls = dry_run("backtranslate.sh", *files, "--beam", "4")
    assert refused.returncode == 2 and not calls
    assert "other options (--sampling --ratio 2 --no-tag; now --beam 4)" in refused.stderr
    (tmp_path / "out" / "settings.txt").unlink()
    for options, device in ((["--cpu"], " --cpu"), ([], "")):
        calls = run(*files, "--beam", "4", *options)
        assert "--share-all-embeddings" not in calls[2]
        assert calls[3] == f"{averages_last} --keep-better out/mixed/data-bin{device}"
    assert calls[1].endswith("--device auto --beam 4")
    for name in "123":
        (tmp_path / "out" / "checkpoints" / f"checkpoint{name}.pt").unlink()
    shorter = (*files, "--beam", "4", "--", "--max-epoch", "2")
    refused, calls = dry_run("backtranslate.sh", *shorter)
    assert refused.returncode == 2 and not calls
    assert (
        "to unlimited 20 unlimited (updates, epochs, hours), which may be longer" in refused.stderr
    )
    (tmp_path / "out" / "settings.txt").unlink()
    assert " --num-epoch-checkpoints 2 " in run(*shorter)[3]
    test_set.unlink()
    done, calls = dry_run("backtranslate.sh", *files, "--beam", "4")
    assert done.returncode == 0 and calls[-1].startswith("admin-nmt average")
    assert "out/mixed/data-bin has no test set: nothing is scored" in done.stdout
    for options, passed in (
        (["--sampling"], "--sampling"),
        (["--sampling-topk", "9", "--sampling"], "--sampling --sampling-topk 9"),
        (
            ["--batch-tokens", "7", "--sampling-topk", "9"],
            "--sampling --sampling-topk 9 --batch-tokens 7",
        ),
        (["--nbest", "2", "--tag", "<T>", "--beam", "4"], "--beam 4 --nbest 2 --tag <T>"),
    ):
        (tmp_path / "out" / "settings.txt").unlink()
        assert run(*files, *options)[1].endswith(f"--device auto {passed}")
    # How many subwords at once makes no other training.
    assert run(*files, *options, "--batch-tokens", "9")[1].endswith(" --tag <T> --batch-tokens 9")
    for words, said in (
        ([*files, "--beam", "4", "--sampling"], "--beam searches without sampling"),
        ([*files, "--sampling-topk", "9", "--beam", "4"], "--beam searches without sampling"),
        (["x"], "give REVERSE_CKPT, DATA, TEXT and OUTPUT"),
        (["none.pt", *files[1:]], "no checkpoint none.pt"),
        ([*files[:2], "none.de", "out"], "no file none.de"),
        ([*files, "--gpus"], "unknown option --gpus"),
        ([*files, "--ratio"], "--ratio needs a value"),
    ):
        refused, _ = dry_run("backtranslate.sh", *words)
        assert (
            refused.returncode == 2 and said in refused.stderr and refused.stderr.count("\n") == 1
        )
