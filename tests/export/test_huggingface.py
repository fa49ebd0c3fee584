"""`admin-nmt export --format huggingface`: transformers loads it and computes the same."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.cli.main import main
from admin_nmt.errors import UserError
from admin_nmt.export import load_translator
from admin_nmt.export.huggingface import prepares_raw_text
from admin_nmt.export.text import TextOptions, load_text
from tests.support.tensors import relative_difference

pytest.importorskip("transformers")

POST_LN = ("--init-type", "default")
FITTING = {
    "ADMIN, unshared": (),
    "shared": ("--share-all-embeddings",),
    "shared with output": ("--share-decoder-input-output-embed", "--activation-fn", "gelu"),
    "DeepNorm, unequal stacks": (
        "--init-type", "deepnorm", "--encoder-layers", "3", "--decoder-attention-heads", "2",
    ),
    "unevenly pruned": ("--heads-per-layer", "E:3,0 A:4,1 D:2,4"),
}  # fmt: skip
REFUSED = {
    "pre-LN": (
        (*POST_LN, "--encoder-normalize-before", "--decoder-normalize-before"), "(pre-LN)",
    ),
    "RealFormer": ((*POST_LN, "--residual-attention", "all"), "--residual-attention all"),
    "ReZero": (("--init-type", "rezero"), "has no LayerNorm"),
    "learned positions": (("--encoder-learned-pos",), "--encoder-learned-pos"),
    "normed embedding": (("--layernorm-embedding",), "--layernorm-embedding"),
    "widths": (("--decoder-embed-dim", "16"), "--decoder-embed-dim 16 differ"),
}  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> list[str]:
    """Options that describe the text of `data_bin`."""
    codes = tmp_path / "codes"
    codes.write_text("#version: 0.2\nw 1\nw1 2</w>\n")
    return ["-s", "de", "-t", "en", "--bpe-codes", str(codes), "--format", "huggingface"]


@pytest.mark.parametrize("options", FITTING.values(), ids=FITTING)
def test_logits_are_equal(
    make: Callable[..., Any], batch: dict[str, Any], data_bin: Path, tmp_path: Path,
    text: list[str], capsys: Any, options: tuple[str, ...],
) -> None:  # fmt: skip
    from transformers import FSMTForConditionalGeneration

    model, path = make(tmp_path / "model.pt", *options)
    output = tmp_path / "exported"
    assert main(["export", str(path), str(data_bin), *text, "--output", str(output)]) == 0
    said = capsys.readouterr()
    assert "an FSMT model of transformers" in said.out
    assert not said.err  # no progress bars
    theirs = FSMTForConditionalGeneration.from_pretrained(str(output)).eval()
    source = batch["net_input"]["src_tokens"]
    target = batch["net_input"]["prev_output_tokens"]
    with torch.no_grad():
        expected = model(**batch["net_input"])[0]
        found = theirs(
            input_ids=source, attention_mask=source.ne(1).long(), decoder_input_ids=target,
            use_cache=False,
        ).logits  # fmt: skip
    words = target.ne(1)  # what stands at padding is never read
    assert relative_difference(found[words], expected[words]) < 1e-4


@pytest.mark.parametrize(("options", "named"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(
    make: Callable[..., Any], data_bin: Path, tmp_path: Path, text: list[str], capsys: Any,
    options: tuple[str, ...], named: str,
) -> None:  # fmt: skip
    _, path = make(tmp_path / "model.pt", *options)
    output = tmp_path / "exported"
    assert main(["export", str(path), str(data_bin), *text, "--output", str(output)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert named in line and str(path) in line
    assert not output.exists()


def test_it_translates_what_was_learned(
    word_model: Path, prepared: Path, tmp_path: Path, capsys: Any
) -> None:
    """Beam search of transformers, from raw text, against our own translator."""
    from transformers import FSMTForConditionalGeneration, FSMTTokenizer

    output = tmp_path / "exported"
    command = ["export", str(word_model), str(prepared), "--format", "huggingface"]
    assert main([*command, "--output", str(output)]) == 0
    assert json.loads((output / "huggingface-export.json").read_text())["raw_text"] is False
    assert "give it subwords, as README.md in the folder shows" in capsys.readouterr().out
    tokenizer = FSMTTokenizer.from_pretrained(str(output))
    model = FSMTForConditionalGeneration.from_pretrained(str(output)).eval()
    lines = ["Hund läuft.", "Straße sieht grün Haus Katze.", "Katze schläft."]
    batch = tokenizer(lines, return_tensors="pt", padding=True)
    ids = model.generate(**batch, max_length=20)
    found = tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert found == load_translator(word_model, threads=1).translate(lines)
    capsys.readouterr()
    assert main([*command, "--output", str(output)]) == 1
    assert f"{output} exists" in capsys.readouterr().err
    assert main([*command, "--output", str(output), "--force"]) == 0


def test_raw_text_is_for_training_text_that_was_prepared_as_fsmt_does(tmp_path: Path) -> None:
    codes = tmp_path / "codes"
    codes.write_text("#version: 0.2\nw 1\n")
    fitting = TextOptions(codes, "de", "en", normalize=True, aggressive_hyphens=True)
    assert prepares_raw_text(load_text(tmp_path, options=fitting))
    for change in (
        {"normalize": False},
        {"aggressive_hyphens": False},
        {"source_lang": "xx", "tokenizer_lang": ["xx=de"]},
        {"target_lang": "xx", "tokenizer_lang": ["xx=en"]},
    ):
        other = load_text(tmp_path, options=replace(fitting, **change))
        assert not prepares_raw_text(other), change
    text = load_text(tmp_path, options=fitting)
    substituted = replace(text.pipeline.source, substitute=(("a", "b"),))
    assert not prepares_raw_text(replace(text, pipeline=replace(text.pipeline, source=substituted)))
    old = tmp_path / "old-codes"
    old.write_text("w 1\n")  # of version 0.1, without the ends of words
    assert not prepares_raw_text(load_text(tmp_path, options=replace(fitting, bpe_codes=old)))


def test_the_vocabulary_keeps_every_index(tmp_path: Path) -> None:
    from admin_nmt.export.huggingface import _vocabulary

    path = tmp_path / "dict.de.txt"
    path.write_text("Hau@@ 5\ns 4\nHau 3\nmadeupword0000 0\n")
    assert list(_vocabulary(path).items())[3:] == [
        ("<unk>", 3), ("Hau", 4), ("s</w>", 5), ("Hau</w>", 6), ("madeupword0000</w>", 7),
    ]  # fmt: skip
    path.write_text("s</w>@@ 5\ns 4\n")
    with pytest.raises(UserError, match="name of another symbol"):
        _vocabulary(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["onnx"], "--format onnx: choose from ctranslate2, huggingface"),
        (
            ["huggingface", "--quantization", "int8"],
            "--quantization int8: --format huggingface is float32",
        ),
    ],
)
def test_other_formats_and_types_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "x.pt", str(tmp_path), "--output", str(tmp_path / "y"), "--format"]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err
