"""Data prepared with SentencePiece: the same commands give right text, here of a script without spaces."""

import json
import random
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from admin_nmt.cli.main import main
from admin_nmt.evaluation.text import read_lines
from admin_nmt.export import TextOptions, load_translator

WORDS = {
    "Hund": "犬",
    "Katze": "猫",
    "Haus": "家",
    "läuft": "走る",
    "grün-blau": "青緑",
    "„sieht“": "見る",
}
GERMAN = ["Hund läuft, Katze „sieht“.", "", "Haus grün-blau, Hund läuft."]
JAPANESE = ["犬走る、猫見る。", "", "家青緑、犬走る。"]


def sentence(rng: random.Random) -> tuple[str, str]:
    """Word by word, commas between some."""
    german, japanese = "", ""
    for word in rng.choices(list(WORDS), k=rng.randint(1, 4)):
        comma = rng.random() < 0.4 and german
        german += (", " if comma else " ") + word
        japanese += "、" * bool(comma) + WORDS[word]
    return german.strip() + ".", japanese + "。"


@pytest.fixture(scope="module")
def prepared_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a real `admin-nmt prepare --subword sentencepiece`; Moses knows no xx."""
    folder = tmp_path_factory.mktemp("raw-words")
    rng = random.Random(4)
    for split, count in (("train", 800), ("valid", 10), ("test", 12)):
        for language, lines in zip(
            ("de", "xx"), zip(*(sentence(rng) for _ in range(count)), strict=True), strict=True
        ):
            text = "".join(f"{line}\n" for line in lines)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
    command = [
        "prepare",
        "custom",
        "--corpus",
        folder,
        "--source-lang",
        "de",
        "--target-lang",
        "xx",
    ]
    command += ["--subword", "sentencepiece", "--bpe-tokens", 50, "--joined-dictionary"]
    assert main([*map(str, command), "--output", str(folder / "prepared"), "--workers", "1"]) == 0
    return folder / "prepared"


@pytest.fixture(scope="module")
def raw_model(
    prepared_raw: Path, save: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint that has learned the words, trained in this process."""
    from fairseq import options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import admin_nmt.registration  # noqa: F401

    command = [str(prepared_raw / "data-bin"), "--arch", "admin_transformer_tiny", "--cpu"]
    command += [
        "--share-all-embeddings",
        "--dropout",
        "0",
        "--init-type",
        "admin-log",
        "--lr",
        "0.01",
    ]
    command += [
        "-s",
        "de",
        "-t",
        "xx",
        "--max-source-positions",
        "64",
        "--max-target-positions",
        "64",
    ]
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, command))
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    dataset, model = task.dataset("train"), task.build_model(cfg.model)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, 350)
    order = torch.randint(len(dataset), (350, 32))
    for numbers in order.tolist():
        sample = dataset.collater([dataset[number] for number in numbers])
        logits = model(**sample["net_input"])[0]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), sample["target"].flatten(), ignore_index=1
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert loss < 0.1
    return save(model, cfg, tmp_path_factory.mktemp("raw-model") / "checkpoint.pt")


def test_checkpoint_and_export_translate_raw_text_alike(
    prepared_raw: Path, raw_model: Path, tmp_path: Path
) -> None:
    exported = tmp_path / "exported"
    assert main(["export", str(raw_model), str(prepared_raw), "--output", str(exported)]) == 0
    assert (exported / "sentencepiece.model").is_file() and not (exported / "codes").exists()
    assert "ctranslate2 sentencepiece`" in (exported / "README.md").read_text(encoding="utf-8")
    for path in (exported, raw_model):
        assert load_translator(path, threads=1).translate(GERMAN) == JAPANESE


def test_evaluate_and_ablate_score_text_against_raw_text(
    prepared_raw: Path, raw_model: Path, tmp_path: Path
) -> None:
    data, path = str(prepared_raw / "data-bin"), str(raw_model)
    output = tmp_path / "evaluation"
    assert main(["evaluate", data, "--path", path, "--cpu", "--output", str(output)]) == 0
    raw = {lang: read_lines(prepared_raw / f"raw/test.{lang}") for lang in ("de", "xx")}
    translated = read_lines(output / "hypotheses.detok")
    assert translated == load_translator(raw_model, threads=1).translate(raw["de"])
    assert sum(a == b for a, b in zip(translated, raw["xx"], strict=True)) >= 8
    assert read_lines(output / "sources.detok") == raw["de"]
    assert read_lines(output / "references.detok") == raw["xx"]
    assert not list(output.glob("*.tok"))
    scores = json.loads((output / "scores.json").read_text())["scores"]
    assert [row["name"] for row in scores] == ["BLEU", "chrF2", "chrF2++", "TER"]

    output = tmp_path / "ablation"
    command = ["ablate", data, "--path", path, "--cpu", "--output", str(output), "--kinds", "E"]
    assert main([*command, "--experiments", "one-head"]) == 0
    assert translated in [read_lines(file) for file in output.glob("translations/*/*.txt")]


def test_a_folder_that_is_not_prepared_is_described_by_the_model_file(
    prepared_raw: Path, raw_model: Path, tmp_path: Path
) -> None:
    model = prepared_raw / "sentencepiece.model"
    for path in (prepared_raw / "data-bin").iterdir():
        if path.name.startswith(("dict.", "test.")):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    options = TextOptions(source_lang="de", target_lang="xx", sentencepiece_model=model)
    translator = load_translator(raw_model, data=tmp_path, threads=1, options=options)
    assert translator.translate(GERMAN) == JAPANESE


def test_transformers_tokenizer_is_refused_before_any_work(
    prepared_raw: Path, raw_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from admin_nmt.errors import UserError
    from admin_nmt.export import huggingface

    monkeypatch.setattr(huggingface, "import_transformers", Namespace)
    with pytest.raises(UserError, match=r"knows BPE codes only.* --format ctranslate2"):
        huggingface.export_huggingface(raw_model, prepared_raw, tmp_path / "new")
    assert not list(tmp_path.iterdir())
