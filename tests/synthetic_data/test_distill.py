"""`admin-nmt distill`: the teacher's translations as training data, resumed, without repetitions."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.cli.main import main
from admin_nmt.data.data_folder import language_pairs
from admin_nmt.errors import UsageError, UserError
from admin_nmt.export import load_translator
from admin_nmt.export.search import Search
from admin_nmt.files import locked, sha256
from admin_nmt.json_files import read_json, require_same_settings, write_json
from admin_nmt.synthetic_data import distill
from admin_nmt.synthetic_data.translating import (
    identities,
    identity_of_data,
    text_pipeline_of,
)
from tests.support.binarised import read_pairs, write_dictionary
from tests.support.programs import BIN
from tests.support.read_only import read_only_copy, require_writable

DryRun = Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]


@pytest.fixture(scope="module")
def small(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder with its 20 test pairs for a training set, the first three a second time, and an
    empty source."""
    from fairseq.data import Dictionary, data_utils
    from fairseq.data.indexed_dataset import make_builder

    data = tmp_path_factory.mktemp("small") / "data-bin"
    shutil.copytree(prepared / "data-bin", data, ignore=shutil.ignore_patterns("train.*"))
    for language in ("de", "en"):
        dictionary = Dictionary.load(str(data / f"dict.{language}.txt"))
        test = data_utils.load_indexed_dataset(str(data / f"test.de-en.{language}"), dictionary)
        prefix = data / f"train.de-en.{language}"
        builder = make_builder(f"{prefix}.bin", impl="mmap", vocab_size=len(dictionary))
        for index in (*range(len(test)), 0, 1, 2):
            builder.add_item(test[index].int())
        empty = test[0].int()[-1:] if language == "de" else test[0].int()
        builder.add_item(empty)
        builder.finalize(f"{prefix}.idx")
    return data


def pairs(data: Path, subset: str = "train") -> list[tuple[str, str]]:
    """German and English."""
    return read_pairs(data, subset, "de", "en")


def test_targets_are_what_the_teacher_translates(
    small: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["distill", str(exported), str(small), "--output", str(out), "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "20 training pairs from 24 sentences of train (3 repeated pairs and 1 sent" in said
    assert said.endswith("left out); train with -s de -t en\n")
    found = pairs(out / "data-bin")
    assert [source for source, _ in found] == [source for source, _ in pairs(small)][:20]
    translator = load_translator(exported, threads=1)
    raw = (small / "raw" / "test.de").read_text(encoding="utf-8").splitlines()
    decoded = [translator.text.decode(target) for _, target in found]
    assert decoded == translator.translate(raw)
    # All else is as it was, so that every command takes the new folder.
    before = {path.relative_to(small) for path in small.rglob("*")}
    assert {path.relative_to(out / "data-bin") for path in (out / "data-bin").rglob("*")} == before
    assert pairs(out / "data-bin", "valid") == pairs(small, "valid")


def test_checkpoints_teach_too_and_originals_can_stay(
    small: Path, word_model: Path, exported: Path, tmp_path: Path
) -> None:
    search = Search(beam=3, nbest=2)
    # As fairseq-preprocess leaves it: nothing says how raw text becomes subwords.
    bare = tmp_path / "bare"
    shutil.copytree(small, bare, ignore=shutil.ignore_patterns("preparation.json", "codes"))
    teachers = {"checkpoint": (word_model, bare), "folder": (exported, small)}
    found = {
        name: distill(teacher, data, tmp_path / name, search, keep_original=True, threads=1)
        for name, (teacher, data) in teachers.items()
    }
    with pytest.raises(UserError, match=r"has no preparation\.json .* export the model first"):
        text_pipeline_of(word_model, bare, ("de", "en"))
    assert pairs(found["checkpoint"].data)[:21] == pairs(small)[:20] + pairs(small)[23:]
    results = [set(pairs(one.data)) for one in found.values()]
    assert results[0] == results[1]
    for one in found.values():
        assert one.num_pairs == len(pairs(one.data)) == len(set(pairs(one.data)))
        assert one.num_sources == 24 and one.num_long == 1
        # 21 originals, and two translations of each of 20 different sentences, repetitions apart.
        assert one.num_pairs + one.num_repeated == 24 + 2 * 23
        assert one.num_pairs > 21


def test_a_folder_that_cannot_be_written_has_a_copy_that_can(
    small: Path, exported: Path, tmp_path: Path
) -> None:
    data = read_only_copy(small, tmp_path / "data-bin")
    made = distill(exported, data, tmp_path / "out", Search(beam=1), threads=1).data
    require_writable(made)


@pytest.fixture
def reverse(word_model: Path, tmp_path: Path) -> Path:
    """`word_model` with its languages exchanged: with a joined dictionary, a model of en-de."""
    checkpoint = Checkpoint.open(word_model)
    task = checkpoint.state["cfg"]["task"]
    assert task["source_lang"] == "de"
    task["source_lang"], task["target_lang"] = "en", "de"
    checkpoint.save(tmp_path / "reverse.pt")
    return tmp_path / "reverse.pt"


def test_a_teacher_of_the_other_direction(small: Path, reverse: Path, tmp_path: Path) -> None:
    found = distill(reverse, small, tmp_path / "out", Search(beam=1), threads=1)
    kept = read_json(tmp_path / "out" / "distillation.json")
    assert (kept["source_lang"], kept["target_lang"]) == ("en", "de")
    # No file is named en-de among others that are named de-en.
    assert language_pairs(found.data) == ["de-en"]
    english = [source for source, _ in read_pairs(found.data, "train", "en", "de")]
    assert english == [source for source, _ in read_pairs(small, "train", "en", "de")][:20]
    german = [target for _, target in read_pairs(found.data, "train", "en", "de")]
    assert german != [target for _, target in read_pairs(small, "train", "en", "de")][:20]


def test_each_training_set_is_translated(small: Path, exported: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(small, tmp_path / "mixed")
    for file in small.glob("valid.de-en.*"):
        suffix = file.name.removeprefix("valid.de-en")
        # fairseq reads the second of these names too, and not train3, before which train2 is missing.
        for name in ("train1.en-de", "train3.de-en"):
            shutil.copy(file, mixed / (name + suffix))
    found = distill(exported, mixed, tmp_path / "out", threads=1, part_sentences=30)
    assert found.subsets == ["train", "train1"] and found.num_sources == 24 + 20
    alone = distill(exported, small, tmp_path / "alone", threads=1)
    assert pairs(found.data) == pairs(alone.data)
    assert not list(found.data.glob("train3.*"))
    for file in found.data.glob("train1.en-de.*"):
        file.rename(file.with_name(file.name.replace("en-de", "de-en")))
    sources, targets = zip(*pairs(found.data, "train1"), strict=True)
    assert list(sources) == list(dict.fromkeys(source for source, _ in pairs(small, "valid")))
    assert found.num_pairs == len(pairs(alone.data)) + len(sources)
    translator = load_translator(exported, threads=1)
    decode = translator.text.decode
    assert [*map(decode, targets)] == translator.translate([*map(decode, sources)])


def test_translations_can_be_drawn(small: Path, exported: Path, tmp_path: Path) -> None:
    words = ["--sampling", "--nbest", "4", "--temperature", "2", "--threads", "1"]
    for seed, name in (("1", "first"), ("1", "again"), ("2", "other")):
        folder = str(tmp_path / name)
        command = ["distill", str(exported), str(small), "--output", folder, *words, "--seed", seed]
        assert main(command) == 0
    first, again, other = (
        pairs(tmp_path / name / "data-bin") for name in ("first", "again", "other")
    )
    assert first == again != other
    assert 20 < len(first) <= 4 * 23


def test_it_goes_on_where_it_was_interrupted(
    small: Path, exported: Path, tmp_path: Path, interrupt: Callable[[int], list[int]]
) -> None:
    calls = interrupt(3)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        distill(exported, small, out, threads=1, part_sentences=5)
    assert not (out / "data-bin").exists() and len(list((out / "translations").glob("0*"))) == 2
    distill(exported, small, out, threads=1, part_sentences=5)
    assert calls == [5, 5, 5, 5, 5, 4]
    whole = distill(exported, small, tmp_path / "whole", threads=1)
    assert pairs(out / "data-bin") == pairs(whole.data)


def test_what_does_not_belong_together_is_refused(
    small: Path, exported: Path, tmp_path: Path
) -> None:
    distill(exported, small, tmp_path / "out", threads=1)
    with pytest.raises(UserError, match="holds translations with another search"):
        distill(exported, small, tmp_path / "out", Search(beam=2), threads=1)
    translations = tmp_path / "out" / "translations"
    with (
        locked(translations / ".lock", translations),
        pytest.raises(UserError, match=r"another run of admin-nmt is at work in .*translations"),
    ):
        distill(exported, small, tmp_path / "out", threads=1)
    replaced = shutil.copytree(small, tmp_path / "replaced")
    distill(exported, replaced, tmp_path / "again", threads=1)
    (source,) = replaced.glob("train.*.de.bin")
    content = bytearray(source.read_bytes())
    content[:2], content[2:4] = content[2:4], content[:2]  # another text at the same place
    source.write_bytes(content)
    with pytest.raises(UserError, match="holds translations with another training set"):
        distill(exported, replaced, tmp_path / "again", threads=1)
    other = shutil.copytree(small, tmp_path / "other")
    with (other / "dict.en.txt").open("a") as stream:
        stream.write("more 1\n")
    with pytest.raises(UserError, match=r"another vocabulary than .* \(dict\.en\.txt\)"):
        distill(exported, other, tmp_path / "new", threads=1)
    with pytest.raises(UsageError, match="--nbest 3 needs --beam"):
        Search(beam=2, nbest=3)
    assert main(["distill", str(exported), str(small), "--output", "x", "--batch-tokens", "0"]) == 2


def test_a_teacher_that_is_exported_again_is_the_same(tmp_path: Path) -> None:
    path, settings = tmp_path / "export.json", tmp_path / "settings.json"
    files = {"model/model.bin": "1", "dict.de.txt": "2", "README.md": "3"}
    manifest = {"created": "2020-01-01T00:00:00+00:00", "quantization": "int8", "max_source": 9,
                "max_target": 9, "source_lang": "de", "target_lang": "en", "files": files}  # fmt: skip
    write_json(path, manifest)
    first, earlier = identities(tmp_path)
    assert earlier == sha256(path)
    require_same_settings(settings, {"teacher": first}, {"teacher": earlier})
    write_json(
        path,
        manifest | {"created": "2021-01-01T00:00:00+00:00", "files": files | {"README.md": "4"}},
    )
    again, changed = identities(tmp_path)
    assert again == first and changed != earlier
    require_same_settings(settings, {"teacher": again}, {"teacher": changed})
    for other in (
        {"files": files | {"model/model.bin": "5"}},
        {"max_source": 5},
        {"source_lang": "en"},
    ):
        write_json(path, manifest | other)
        found, before = identities(tmp_path)
        assert found != first
        with pytest.raises(UserError, match="holds translations with another teacher"):
            require_same_settings(settings, {"teacher": found}, {"teacher": before})
    # A folder of an earlier version goes on with that very export, and is left as it is.
    write_json(settings, {"teacher": earlier})
    require_same_settings(settings, {"teacher": first}, {"teacher": earlier})
    assert read_json(settings) == {"teacher": earlier}


@pytest.mark.parametrize("output", ["data-bin/distilled", "data-bin", "link/x", "."])
def test_output_in_the_data_or_over_them_is_refused_at_the_start(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data-bin"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    common = ["none.pt", str(data), "--output", str(tmp_path / output)]
    for words in (["distill", *common], ["backtranslate", *common, "--input", "none.de"]):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert "its data-bin would lie in" in said and said.count("\n") == 1
    assert not list(data.iterdir())


def test_a_data_bin_of_something_else_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, theirs = tmp_path / "data-bin", tmp_path / "prepared" / "data-bin"
    data.mkdir()
    theirs.mkdir(parents=True)
    common = ["none.pt", str(data), "--output", str(theirs.parent)]
    for words in (["distill", *common], ["backtranslate", *common, "--input", "none.de"]):
        assert main(words) == 1
        assert "has a data-bin that was not made by this command" in capsys.readouterr().err


def test_data_with_other_dictionaries_are_other_data(tmp_path: Path) -> None:
    path = tmp_path / "translations" / "settings.json"
    path.parent.mkdir()
    write_dictionary(tmp_path, "de", ["hund"])
    write_dictionary(tmp_path, "en", ["dog"])
    before = identity_of_data(tmp_path, ("de", "en"))
    require_same_settings(path, before)
    write_dictionary(tmp_path, "en", ["cat"])
    now = identity_of_data(tmp_path, ("de", "en"))
    with pytest.raises(UserError, match=r"translations with another vocabulary \({'de': "):
        require_same_settings(path, now)
    write_json(path, {"data": before["data"]})  # as written before dictionaries were recorded
    with pytest.raises(
        UserError, match=r"another vocabulary \(not recorded, now .*\): give another --out"
    ):
        require_same_settings(path, before)
    path.write_text("[]")
    with pytest.raises(UserError, match=r"it holds no JSON object; delete .*translations"):
        require_same_settings(path, before)


def test_the_script_trains_in_the_direction_of_the_teacher(dry_run: DryRun, tmp_path: Path) -> None:
    made = tmp_path / "out" / "distilled"
    (made / "data-bin").mkdir(parents=True)
    (tmp_path / "teacher.pt").touch()
    write_json(made / "distillation.json", {"source_lang": "en", "target_lang": "de"})
    for german, shared in (("word", True), ("wort", False)):
        for language, word in (("de", german), ("en", "word")):
            (made / "data-bin" / f"dict.{language}.txt").write_text(f"{word} 1\n")
        done, calls = dry_run("distill.sh", "teacher.pt", "out", "out", "--cpu")
        assert done.returncode == 0, done.stderr
        assert calls[2].startswith("fairseq-train out/distilled/data-bin -s en -t de --cpu")
        assert ("--share-all-embeddings" in calls[2]) == shared
    # The student is exported whether there is something to score it on or not.
    assert (
        calls[-1] == "admin-nmt export out/student.pt out --quantization int8 --output out/student"
    )
    assert "out has no test set: nothing is scored" in done.stdout
    (tmp_path / "out" / "test.en-de.en.idx").touch()
    done, calls = dry_run("distill.sh", "teacher.pt", "out", "out", "--cpu")
    assert [call.split()[1] for call in calls[-3:]] == ["export", "evaluate", "evaluate"]
    assert "no test set" not in done.stdout
    (tmp_path / "out" / "checkpoints").mkdir()
    (tmp_path / "out" / "checkpoints" / "checkpoint_last.pt").touch()
    longer, calls = dry_run("distill.sh", "teacher.pt", "out", "out", "--", "--max-epoch", "30")
    assert longer.returncode == 0 and calls
    other, calls = dry_run("distill.sh", "teacher.pt", "out", "out", "--", "--dropout", "0.3")
    assert other.returncode == 2 and not calls
    assert "other options (none; now --dropout 0.3)" in other.stderr


def test_the_script_exports_another_checkpoint_anew(dry_run: DryRun, tmp_path: Path) -> None:
    """A student that was trained for longer, say; or another teacher, whose translations
    `admin-nmt distill` then refuses to mix with those of the first."""
    made = tmp_path / "out" / "distilled"
    (made / "data-bin").mkdir(parents=True)
    write_json(made / "distillation.json", {"source_lang": "en", "target_lang": "de"})
    (tmp_path / "teacher.pt").write_text("first")
    (tmp_path / "out" / "student.pt").write_text("first")
    for name in ("teacher", "student"):
        checkpoint = {"file": "x.pt", "sha256": sha256(tmp_path / "teacher.pt")}
        (tmp_path / "out" / name).mkdir()
        write_json(tmp_path / "out" / name / "export.json", {"checkpoint": checkpoint})

    def exports() -> list[str]:
        done, calls = dry_run("distill.sh", "teacher.pt", "out", "out", "--cpu")
        assert done.returncode == 0, done.stderr
        return [call for call in calls if call.startswith("admin-nmt export ")]

    assert exports() == []
    (tmp_path / "out" / "student.pt").write_text("longer")
    assert exports() == [
        "admin-nmt export out/student.pt out --quantization int8 --output out/student --force"
    ]
    (tmp_path / "teacher.pt").write_text("another")
    assert len(exports()) == 2


@pytest.mark.long
def test_the_script_makes_a_student(small: Path, word_model: Path, tmp_path: Path) -> None:
    """Everything from a teacher's checkpoint to an exported student."""
    script = Path(__file__).parents[2] / "scripts" / "distill.sh"
    command = [
        "bash", str(script), str(word_model), str(small), str(tmp_path / "out"), "--cpu", "--",
        *"--encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-embed-dim 16 --max-epoch 5 "
        "--encoder-attention-heads 2 --decoder-attention-heads 2".split(),
    ]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1", "ADMIN_NMT_VENV": str(BIN.parent)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    for name in ("scores-teacher", "scores-student"):
        assert (tmp_path / "out" / name / "scores.json").exists()
    student = Checkpoint.open(tmp_path / "out" / "student.pt")
    assert student.setting("model", "encoder_layers") == 1
    assert student.state["keep_better"]["subset"] == "valid"
    assert len(load_translator(tmp_path / "out" / "student", threads=1).translate(["Hund."])) == 1
    for words, said in (
        (["none.pt", "x", "y"], "no checkpoint none.pt"),
        (["x"], "give TEACHER_CKPT"),
    ):
        refused = subprocess.run(
            ["bash", str(script), *words], capture_output=True, text=True, env=env
        )
        assert refused.returncode == 2 and said in refused.stderr
