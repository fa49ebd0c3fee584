"""`admin-nmt export`: a folder that is whole, checked, and translates as the checkpoint does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.errors import UsageError, UserError
from admin_nmt.export import TextOptions, bundle, export_bundle, load_translator
from admin_nmt.export.bundle import QUANTIZATIONS, read_manifest
from admin_nmt.export.verification import score_tolerance
from admin_nmt.files import sha256
from tests.support.words import ENGLISH, GERMAN


def test_it_translates_what_was_learned(exported: Path) -> None:
    assert load_translator(exported, threads=1).translate(GERMAN) == ENGLISH


def test_checkpoint_and_exported_folder_translate_the_test_set_alike(
    exported: Path, word_model: Path, prepared: Path
) -> None:
    lines = (prepared / "data-bin/raw/test.de").read_text(encoding="utf-8").splitlines()
    ours = load_translator(exported, threads=1)
    fairseq = load_translator(word_model, threads=1)
    assert ours.translate(lines) == fairseq.translate(lines)
    for a, b in zip(ours.translate_nbest(lines, 3), fairseq.translate_nbest(lines, 3), strict=True):
        assert a[0].text == b[0].text
        assert a[0].score == pytest.approx(b[0].score, abs=1e-3)


def test_the_folder_is_self_contained(exported: Path, tmp_path: Path) -> None:
    """It names no file outside, and works where it is moved to."""
    moved = shutil.copytree(exported, tmp_path / "elsewhere")
    names = {path.relative_to(moved).as_posix() for path in moved.rglob("*") if path.is_file()}
    assert {
        "README.md", "export.json", "preparation.json", "codes", "dict.de.txt", "dict.en.txt",
        "model/model.bin", "model/config.json",
    } <= names  # fmt: skip
    for name in ("README.md", "export.json", "preparation.json"):
        assert str(exported.parent.parent) not in (moved / name).read_text(encoding="utf-8")
    assert load_translator(moved, threads=1).translate(GERMAN) == ENGLISH


def test_its_provenance_is_complete(exported: Path, word_model: Path) -> None:
    content = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    assert content["checkpoint"]["sha256"] == sha256(word_model)
    assert content["checkpoint"]["architecture"] == "admin_transformer_tiny"
    assert content["checkpoint"]["num_updates"] > 0
    assert content["quantization"] == "float32"
    assert content["model"]["encoder_embed_dim"] == 32
    assert content["versions"]["ctranslate2"] and content["versions"]["torch"]
    assert content["verification"]["num_identical"] == content["verification"]["num_sentences"] == 8
    files = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert set(content["files"]) == files - {"export.json"}


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda f: (f / "codes").unlink(), "codes is missing"),
        (lambda f: (f / "model/model.bin").unlink(), "model/model.bin is missing"),
        (lambda f: (f / "dict.en.txt").write_text("x 1\n"), "altered: dict.en.txt"),
        (lambda f: (f / "preparation.json").open("a").write(" "), "altered: preparation.json"),
        (lambda f: (f / "export.json").unlink(), "not an exported folder: it has no export.json"),
        (lambda f: (f / "export.json").write_text("{"), "export.json is not valid JSON"),
        (lambda f: (f / "export.json").write_text("[]"), "not written by 'admin-nmt export'"),
        (lambda f: _edit(f, version=2), "version 2, expected 1"),
        (lambda f: _edit(f, files={}), "incomplete; export again"),
        (lambda f: _edit(f, max_source=None), "incomplete: .*; export again"),
    ],
)
def test_a_damaged_folder_is_refused(
    exported: Path, tmp_path: Path, alter: Callable[[Path], Any], reason: str
) -> None:
    folder = shutil.copytree(exported, tmp_path / "damaged")
    alter(folder)
    with pytest.raises(UserError, match=reason):
        load_translator(folder)


def _edit(folder: Path, **values: Any) -> None:
    content = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    (folder / "export.json").write_text(json.dumps(content | values), encoding="utf-8")


def test_a_flipped_bit_in_the_weights_is_found(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "damaged")
    weights = bytearray((folder / "model/model.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / "model/model.bin").write_bytes(weights)
    with pytest.raises(UserError, match=r"altered: model/model\.bin"):
        load_translator(folder)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_quantization_translates(
    word_model: Path, prepared: Path, tmp_path: Path, quantization: str
) -> None:
    content = export_bundle(word_model, prepared, tmp_path / "out", quantization=quantization)
    assert content["quantization"] == quantization
    assert load_translator(tmp_path / "out", threads=1).translate(GERMAN) == ENGLISH


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> TextOptions:
    """How to read `data_bin`, which no `admin-nmt prepare` made."""
    path = tmp_path_factory.mktemp("codes") / "codes"
    path.write_text("#version: 0.2\n" + "".join(f"w {digit}\n" for digit in range(10)))
    return TextOptions(bpe_codes=path, source_lang="de", target_lang="en")


@pytest.mark.parametrize(
    "options",
    [
        ("--share-decoder-input-output-embed",),
        ("--layernorm-embedding", "--share-all-embeddings"),
        ("--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "24"),
        ("--encoder-learned-pos", "--decoder-learned-pos", "--max-source-positions", "40"),
        ("--no-scale-embedding", "--activation-fn", "gelu"),
        ("--init-type", "deepnorm", "--encoder-layers", "4"),
        ("--init-type", "admin-const"),
        ("--init-type", "default"),
        ("--init-type", "default", "--encoder-normalize-before", "--decoder-normalize-before"),
    ],
    ids=" ".join,
)
def test_every_kind_of_model_that_folds_is_exported(
    make: Callable[..., Any],
    data_bin: Path,
    codes: TextOptions,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    """The check inside the export compares scores; here it must be close to rounding."""
    _, path = make(tmp_path / "model.pt", *options)
    content = export_bundle(path, data_bin, tmp_path / "out", options=codes)
    assert content["verification"]["largest_score_difference"] < 1e-4
    assert content["source_lang"] == "de"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--init-type", "rezero"), "--init-type rezero has no LayerNorm"),
        (("--decoder-attention-heads", "2"), "attention-heads 4 and .* 2 differ"),
        (("--no-token-positional-embeddings",), "--no-token-positional-embeddings"),
        (("--no-cross-attention",), "--no-cross-attention"),
        (
            (
                "--init-type",
                "default",
                "--encoder-normalize-before",
                "--decoder-normalize-before",
                "--no-decoder-final-norm",
            ),
            "--no-decoder-final-norm",
        ),
        (("--decoder-output-dim", "16"), "--decoder-output-dim 16"),
        (("--arch", "lstm"), "of architecture lstm"),
        (("--init-type", "default", "--encoder-normalize-before"), "only one of --encoder-norm"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_models_that_cannot_be_exported_are_refused_with_the_option(
    parse: Callable[..., Any],
    task: Any,
    save: Callable[..., Path],
    data_bin: Path,
    codes: TextOptions,
    tmp_path: Path,
    options: tuple[str, ...],
    reason: str,
) -> None:
    cfg = parse(*options)
    path = save(task.build_model(cfg.model), cfg, tmp_path / "model.pt")
    with pytest.raises(UserError, match=reason):
        export_bundle(path, data_bin, tmp_path / "out", options=codes)
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_replaced_only_when_asked_to(
    word_model: Path, prepared: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    export_bundle(word_model, prepared, output)
    (output / "mine").write_text("mine")
    with pytest.raises(UserError, match="exists: give another name, or --force"):
        export_bundle(word_model, prepared, output)
    assert (output / "mine").exists()
    export_bundle(word_model, prepared, output, force=True, quantization="int8")
    assert read_manifest(output)["quantization"] == "int8"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_somebody_else_is_never_replaced(
    word_model: Path, prepared: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        export_bundle(word_model, prepared, output, force=True)
    assert (output / "thesis.tex").read_text() == "years of work"
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        export_bundle(word_model, prepared, tmp_path / "file", force=True)
    with pytest.raises(UsageError, match="there is no folder"):
        export_bundle(word_model, prepared, tmp_path / "no" / "out")


def test_a_wrong_conversion_is_found_and_the_old_folder_stays(
    word_model: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    export_bundle(word_model, prepared, output)
    before = sha256(output / "export.json")
    from admin_nmt.export import conversion

    right = conversion.plain_model

    def one_layer_wrong(path: Path) -> Any:
        model, settings = right(path)
        name = "decoder.layers.1.fc2.weight"
        return model | {name: torch.zeros_like(model[name])}, settings

    monkeypatch.setattr(conversion, "plain_model", one_layer_wrong)
    with pytest.raises(UserError, match="the exported model is not the checkpoint"):
        export_bundle(word_model, prepared, output, force=True)
    assert sha256(output / "export.json") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_one_line_and_leaves_nothing(
    word_model: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle.shutil, "copyfile", full)
    with pytest.raises(UserError, match=r"cannot write .*out: No space left on device"):
        export_bundle(word_model, prepared, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_of_another_size_is_refused(
    word_model: Path, data_bin: Path, codes: TextOptions, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="does not fit the vocabulary"):
        export_bundle(word_model, data_bin, tmp_path / "out", options=codes)
    with pytest.raises(UserError, match="does not fit the vocabulary"):
        load_translator(word_model, data=data_bin, options=codes)


def test_an_unknown_quantization_lists_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from admin_nmt.cli.main import main

    code = main(["export", "a", "b", "--output", str(tmp_path / "x"), "--quantization", "int4"])
    assert code == 2
    assert "--quantization int4: choose from float32, int8," in capsys.readouterr().err


def prune(checkpoint: Path, prepared: Path, output: Path, *policy: str) -> Path:
    """`admin-nmt prune` in this process."""
    from admin_nmt.cli.main import main

    command = ["prune", str(prepared / "data-bin"), "--path", str(checkpoint), "--cpu", "--random"]
    assert main([*command, *policy, "--output", str(output)]) == 0
    return output


def test_evenly_pruned_models_are_exported_with_fewer_heads(
    word_model: Path, prepared: Path, exported: Path, tmp_path: Path
) -> None:
    """The check inside `export_bundle` compares translations and their scores with fairseq's."""
    policy = "--uniform --encoder-self 0.5 --decoder-self 0.25 --cross 0.25".split()
    pruned = prune(word_model, prepared, tmp_path / "pruned.pt", *policy)
    content = export_bundle(pruned, prepared, tmp_path / "small")
    assert content["verification"]["num_identical"] == content["verification"]["num_sentences"]
    # 2 of 4 heads of 2 layers and 1 of 4 of 4 attentions, 8 * (3 * 33 + 32) numbers each, 4 bytes
    saved = (2 * 2 + 4 * 1) * 8 * (3 * 33 + 32) * 4
    sizes = [
        (folder / "model/model.bin").stat().st_size for folder in (exported, tmp_path / "small")
    ]
    assert abs(sizes[0] - sizes[1] - saved) < 1000


@pytest.mark.parametrize(
    ("policy", "layout"),
    [
        ("--heads E:1:1", "E:3,4 A:4,4 D:4,4"),
        ("--uniform --cross 0.5 --max-batches 1", "E:4,4 A:2,2 D:4,4"),
    ],
)
def test_unevenly_pruned_models_are_refused_by_name(
    word_model: Path, prepared: Path, tmp_path: Path, policy: str, layout: str
) -> None:
    from admin_nmt.cli.main import main

    pruned = tmp_path / "pruned.pt"
    command = ["prune", str(prepared / "data-bin"), "--path", str(word_model), "--cpu"]
    assert main([*command, *policy.split(), "--output", str(pruned)]) == 0
    with pytest.raises(
        UserError, match=f"pruned.pt: its heads per layer are {layout}, and CTransl"
    ):
        export_bundle(pruned, prepared, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_type_that_the_machine_lacks_is_compared_as_the_one_it_computes_in() -> None:
    assert score_tolerance("float32", "float32") == 0.001
    assert score_tolerance("int16", "int16") == score_tolerance("float16", "float32") == 0.02
    assert score_tolerance("int16", "int8_float32") == score_tolerance("int8", "int8") > 0.02
