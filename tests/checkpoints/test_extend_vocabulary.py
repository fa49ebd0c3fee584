"""Another vocabulary for a checkpoint: rows by word, logits of shared words, what is refused."""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from admin_nmt.checkpoints import Checkpoint, extend_vocabulary
from admin_nmt.checkpoints.tensors import leaders
from admin_nmt.checkpoints.vocabulary import find_rows, rearrange_rows
from admin_nmt.cli.main import main
from admin_nmt.errors import UsageError, UserError
from tests.support.binarised import write_dictionary, write_subset
from tests.support.in_process import run_fairseq

#: Of the 40 words of `data_bin`, w0 to w24 stay, w25 to w39 go, n0 to n9 come.
KEPT = [f"w{number}" for number in range(25)]
NEW = [f"n{number}" for number in range(10)]


def slow_rows(table: Tensor, old: Sequence[str], new: Sequence[str], padding: int) -> Tensor:
    """Row by row, as it is said in words."""
    others = [row for number, row in enumerate(table.double()) if number != padding]
    mean = torch.stack(others).sum(0) / len(others)
    rows = [table[old.index(word)] if word in old else mean.to(table.dtype) for word in new]
    return torch.stack(rows)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]))
def test_rows_are_those_of_the_slow_twin(data: st.DataObject, dtype: torch.dtype) -> None:
    words = st.lists(st.integers(0, 30).map(str), unique=True, max_size=12)
    old, new = (["s", "pad", *data.draw(words)] for _ in range(2))
    table = torch.randn(len(old), 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    rows = find_rows({word: place for place, word in enumerate(old)}, new)
    found = rearrange_rows(table, rows, padding=1)
    torch.testing.assert_close(found, slow_rows(table, old, new, 1))
    assert found.dtype == dtype
    for place, word in enumerate(new):
        assert word not in old or torch.equal(found[place], table[old.index(word)])
    # Back again, shared words have what they had.
    back = rearrange_rows(found, find_rows({w: i for i, w in enumerate(new)}, old), padding=1)
    shared = [place for place, word in enumerate(old) if word in new]
    assert torch.equal(back[shared], table[shared])


def new_folder(folder: Path, source: Sequence[str], target: Sequence[str] | None = None) -> Path:
    """A folder with dictionaries only."""
    folder.mkdir()
    write_dictionary(folder, "de", source)
    write_dictionary(folder, "en", source if target is None else target)
    return folder


@pytest.fixture
def make(parse: Callable[..., Any], build: Callable[..., Any]) -> Callable[..., Checkpoint]:
    """`make(*options)`: a checkpoint of a random model, with state that must not be carried on."""

    def make_checkpoint(*options: str) -> Checkpoint:
        state = {
            "args": None,
            "cfg": OmegaConf.to_container(parse(*options), resolve=True, enum_to_str=True),
            "model": build(*options).state_dict(),
            "optimizer_history": [{"num_updates": 7}],
            "extra_state": {"ema": {}, "val_loss": 1.0},
            "last_optimizer_state": {"state": {}},
        }
        return Checkpoint(Path("old.pt"), state)

    return make_checkpoint


def logits(
    checkpoint: Checkpoint, source: Sequence[str], target: Sequence[str]
) -> dict[str, Tensor]:
    """Word -> its logits (T,) after each word of `target`, by the folder the checkpoint names."""
    from fairseq.data import Dictionary

    from admin_nmt.models.loading import build_model
    from admin_nmt.models.settings import model_settings

    assert checkpoint.data_folder
    languages = checkpoint.languages if all(checkpoint.languages) else ("de", "en")
    words = [Dictionary.load(str(checkpoint.data_folder / f"dict.{x}.txt")) for x in languages]
    model = build_model(model_settings(checkpoint), checkpoint.weights, str(checkpoint.family))
    inputs = [torch.tensor([[words[side].index(w) for w in [*text, "</s>"]]])
              for side, text in ((0, source), (1, target))]  # fmt: skip
    with torch.no_grad():
        out = model(inputs[0], torch.tensor([inputs[0].shape[1]]), inputs[1])[0][0]
    return {word: out[:, words[1].index(word)] for word in words[1].symbols}


MODELS = {
    "all shared": ["--share-all-embeddings"],
    "separate": [],
    "pruned": ["--heads-per-layer", "E:1,2 A:2,4 D:0,4", "--share-all-embeddings"],
    "fairseq's": ["--arch", "transformer", "--encoder-layers", "1", "--decoder-layers", "1"],
}


@pytest.mark.parametrize("name", MODELS)
def test_shared_words_have_the_logits_they_had(
    name: str, make: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    old = make(*MODELS[name])
    before = {key: value.clone() for key, value in old.weights.items()}
    joined = "--share-all-embeddings" in MODELS[name]
    other = None if joined else [*reversed(KEPT[:20]), "only", *NEW]
    folder = new_folder(tmp_path / "new", [*NEW, *reversed(KEPT)], other)
    new, changes = extend_vocabulary(old, folder)
    assert [change.line() for change in changes] == [
        "de: 25 words kept, 10 new, 15 dropped",
        "en: 25 words kept, 10 new, 15 dropped" if joined
        else "en: 20 words kept, 11 new, 20 dropped",
    ]  # fmt: skip
    assert new.data_folder == folder and new.languages == ("de", "en")
    assert new.state["last_optimizer_state"] is None
    assert set(new.state["extra_state"]) == {"train_iterator"}
    assert all(torch.equal(old.weights[key], value) for key, value in before.items())
    assert leaders(new.weights) == leaders(old.weights)
    theirs, ours = (logits(model, KEPT[3:9], KEPT[5:12]) for model in (old, new))
    shared = [word for word in ours if word in theirs]
    assert len(shared) == 4 + changes[1].kept  # and the special symbols
    for word in shared:
        torch.testing.assert_close(ours[word], theirs[word], rtol=1e-5, atol=1e-5)
    assert torch.equal(ours["n0"], ours["n1"])  # both are the mean


def test_a_folded_model(make: Callable[..., Checkpoint], tmp_path: Path) -> None:
    from admin_nmt.export import fold

    folded, _ = fold(make("--share-all-embeddings"))
    new, _ = extend_vocabulary(folded, new_folder(tmp_path / "new", [*NEW, *KEPT]))
    theirs, ours = (logits(model, KEPT[3:9], KEPT[5:12]) for model in (folded, new))
    torch.testing.assert_close(ours["w3"], theirs["w3"], rtol=1e-5, atol=1e-5)


def test_what_cannot_be_right_is_refused(
    make: Callable[..., Checkpoint], data_bin: Path, tmp_path: Path
) -> None:
    shared, adaptive = make("--share-all-embeddings"), make("--adaptive-softmax-cutoff", "20,30")
    joined = new_folder(tmp_path / "joined", KEPT)
    two = new_folder(tmp_path / "two", KEPT, NEW)
    foreign = new_folder(tmp_path / "foreign", NEW)
    short = new_folder(tmp_path / "short", KEPT)
    (tmp_path / "french").mkdir()
    write_dictionary(tmp_path / "french", "fr", KEPT)
    damaged = new_folder(tmp_path / "damaged", ["w1", "w1"])
    cases: list[tuple[Checkpoint, Path, dict[str, Any], str]] = [
        (adaptive, joined, {}, "trained with --adaptive-softmax-cutoff, whose clusters"),
        (shared, two, {}, "the dictionaries of .*two differ: prepare the data with --joined-dict"),
        (shared, foreign, {}, r"foreign/dict.de.txt and .*dict.de.txt share no word"),
        (shared, tmp_path / "french", {}, r"dictionary not found: .*french/dict.de.txt"),
        (shared, data_bin, {}, "was trained on .* itself: give the folder with the new"),
        (shared, damaged, {}, "cannot read dictionary .*damaged/dict.de.txt: Duplicate word"),
        (shared, joined, {"old_data": short},
         r"not trained with dictionary .*short/dict.de.txt: its encoder.embed_tokens.weight has "
         r"shape \(48, 32\), the dictionary 29 types; give --old-data"),
        (Checkpoint(shared.path, dict(shared.state) | {"cfg": {
            "model": {"arch": "fconv"}, "task": {}}}), joined, {}, "only admin_transformer"),
        (Checkpoint(shared.path, dict(shared.state) | {"cfg": {
            "model": shared.state["cfg"]["model"],
            "task": {"data": "/gone", "source_lang": "de", "target_lang": "en"}}}),
         joined, {}, "was trained on /gone, which is not here: give --old-data DIR"),
    ]  # fmt: skip
    for checkpoint, folder, options, message in cases:
        with pytest.raises(UserError, match=message):
            extend_vocabulary(checkpoint, folder, **options)
    with pytest.raises(UsageError, match="--source-lang en: the checkpoint was trained with de"):
        extend_vocabulary(shared, joined, source_lang="en", target_lang="de")
    unknown = Checkpoint(shared.path, dict(shared.state) | {"cfg": dict(
        shared.state["cfg"], task={"data": "/gone"})})  # fmt: skip
    with pytest.raises(UsageError, match=r"does not say its languages.*: give --source-lang"):
        extend_vocabulary(unknown, joined, old_data=data_bin)
    new, _ = extend_vocabulary(
        unknown, joined, old_data=data_bin, source_lang="de", target_lang="en"
    )
    assert new.languages == ("de", "en")


def test_training_starts_from_it(
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The front door: a trained model, other text, `fairseq-train --finetune-from-model`."""
    german = ["tür", "fenster", "haus", "gut", "."]
    english = ["window", "door", "never", "hou@@", "se", "good", "."]
    data = tmp_path / "data"
    data.mkdir()
    write_dictionary(data, "de", german)
    write_dictionary(data, "en", english)
    pairs = [(["fenster", "gut", "."], ["window", "good", "."]), (["tür", "."], ["door", "."])]
    write_subset(data, "train", pairs * 8)
    old, output = tmp_path / "old.pt", tmp_path / "new.pt"
    shutil.copy(tiny_run / "checkpoints" / "checkpoint2.pt", old)
    command = ["extend-vocabulary", str(old), str(data), "--output", str(output)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("de: 4 words kept, 1 new, 6 dropped")
    assert lines[1].startswith("en: 6 words kept, 1 new, ")
    assert "--finetune-from-model" in lines[2]
    theirs, ours = (
        logits(Checkpoint.open(path), ["haus", "gut", "."], ["hou@@", "se", "good", "."])
        for path in (old, output)
    )
    for word in english[1:]:
        torch.testing.assert_close(ours[word], theirs[word], rtol=1e-5, atol=1e-5)
    assert main(command) == 1
    assert "exists: give another name, or --force" in capsys.readouterr().err
    sizes = ["--encoder-layers=1", "--decoder-layers=1"]
    sizes += [f"--{side}-{size}" for side in ("encoder", "decoder")
              for size in ("embed-dim=16", "ffn-embed-dim=16", "attention-heads=2")]  # fmt: skip
    with caplog.at_level(logging.INFO):
        run_fairseq(
            "fairseq-train", data, "--arch", "transformer", *sizes, "--cpu", "--disable-validation",
            "--share-decoder-input-output-embed", "--optimizer", "adam", "--lr", "0.01",
            "--max-update", 4, "--batch-size", 8, "--finetune-from-model", output, "--save-dir",
            tmp_path / "saved", "--num-workers", 0,
        )  # fmt: skip
    assert "loading pretrained model from" in caplog.text
    trained = Checkpoint.open(tmp_path / "saved" / "checkpoint_last.pt")
    assert trained.num_updates == 4
    assert trained.weights["decoder.embed_tokens.weight"].shape == (11, 16)
