"""Which direction a checkpoint translates, and how raw text becomes what it reads."""

import json
import shutil
from pathlib import Path

import pytest

from admin_nmt.data import bpe
from admin_nmt.data.text_pipeline import TextPipeline
from admin_nmt.errors import UsageError, UserError
from admin_nmt.export.text import TextOptions, load_text

SETTINGS = {
    "source_lang": "de",
    "target_lang": "en",
    "tokenizer_langs": {"de": "de", "en": "en"},
    "normalize": True,
    "aggressive_hyphens": True,
    "lowercase": True,
    "bpe": {"codes": "codes", "separator": "@@"},
}


@pytest.fixture
def prepared_folder(tmp_path: Path) -> Path:
    """`data-bin` of a prepared folder, without the data."""
    data = tmp_path / "data-bin"
    data.mkdir()
    (data / "preparation.json").write_text(json.dumps(SETTINGS))
    bpe.learn(bpe.count_words(["der Hund und the dog"] * 3), 9, data / "codes")
    return data


def test_a_prepared_folder_says_everything(prepared_folder: Path) -> None:
    for path in (prepared_folder, prepared_folder.parent):
        text = load_text(path)
        assert (text.source_lang, text.target_lang) == ("de", "en")
        assert text.pipeline == TextPipeline.load(prepared_folder)


@pytest.mark.parametrize("replaced", [[], [["\u2019", "'"]]])
def test_the_exported_settings_are_those_of_the_folder(
    prepared_folder: Path, tmp_path: Path, replaced: list[list[str]]
) -> None:
    path = prepared_folder / "preparation.json"
    path.write_text(json.dumps({**SETTINGS, "substitute": {"train": replaced}}))
    text = load_text(prepared_folder)
    exported = tmp_path / "exported"
    exported.mkdir()
    shutil.copy(prepared_folder / "codes", exported)
    (exported / "preparation.json").write_text(json.dumps(text.settings("codes")))
    found = TextPipeline.load(exported)
    assert (found.source, found.target) == (text.pipeline.source, text.pipeline.target)
    assert len(found.source.substitute) == len(replaced)


def test_the_reverse_direction_swaps_the_tokenizers(prepared_folder: Path) -> None:
    there, back = load_text(prepared_folder), load_text(prepared_folder, ("en", "de"))
    assert (back.source_lang, back.target_lang) == ("en", "de")
    assert (back.pipeline.source, back.pipeline.target) == (
        there.pipeline.target,
        there.pipeline.source,
    )


@pytest.mark.parametrize("trained", [(None, None), ("en", "de")])
def test_the_exported_settings_give_the_same_pipeline(
    prepared_folder: Path, tmp_path: Path, trained: tuple[str | None, str | None]
) -> None:
    text = load_text(prepared_folder, trained)
    new = tmp_path / "new"
    new.mkdir()
    shutil.copyfile(text.pipeline.subwords.path, new / "codes")
    (new / "preparation.json").write_text(json.dumps(text.settings("codes")))
    again = TextPipeline.load(new)
    assert (again.source, again.target) == (text.pipeline.source, text.pipeline.target)
    line = "Der „Hunde-Freund“ – und ich"
    assert again.encode(line) == text.pipeline.encode(line)


def test_a_folder_that_is_not_prepared_is_described_by_options(
    prepared_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    options = TextOptions(
        prepared_folder / "codes", "de", "en", normalize=True, aggressive_hyphens=True, lowercase=True
    )  # fmt: skip
    assert load_text(other, options=options).pipeline == TextPipeline.load(prepared_folder)
    with pytest.raises(UserError, match="give --bpe-codes FILE or --sent"):
        load_text(other, ("de", "en"))


@pytest.mark.parametrize(
    ("trained", "options", "reason"),
    [
        (("de", "en"), {"source_lang": "en"}, "--source-lang en: the checkpoint was trained with"),
        (("de", "en"), {"target_lang": "fr"}, "--target-lang fr: the checkpoint was trained with"),
        ((None, None), {"bpe_codes": "codes"}, "has a preparation.json that says so itself"),
        (
            (None, None),
            {"tokenizer_lang": ("de=en",)},
            "has a preparation.json that says so itself",
        ),
        (("fr", "en"), {}, "was prepared for de and en, not for fr to en"),
    ],
)
def test_contradictions_are_refused(
    prepared_folder: Path, trained: tuple[str | None, str | None], options: dict, reason: str
) -> None:
    with pytest.raises((UserError, UsageError), match=reason):
        load_text(prepared_folder, trained, TextOptions(**options))


@pytest.mark.parametrize("name", ["normalize", "aggressive_hyphens", "lowercase"])
def test_processing_that_a_prepared_folder_does_not_have_is_refused(
    prepared_folder: Path, name: str
) -> None:
    said = TextOptions(**{name: True})
    load_text(prepared_folder, options=said)
    path = prepared_folder / "preparation.json"
    content = path.read_text()
    path.write_text(json.dumps(json.loads(content) | {name: False}))
    try:
        with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')}: .* says otherwise"):
            load_text(prepared_folder, options=said)
    finally:
        path.write_text(content)


def test_a_missing_folder_and_a_strange_language_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data folder not found: .*missing"):
        load_text(tmp_path / "missing")
    with pytest.raises(UserError, match=r"knows no language 'xx' .* give --tokenizer-lang xx=en"):
        load_text(tmp_path, options=TextOptions("codes", "xx", "en"))
    with pytest.raises(UsageError, match="--tokenizer-lang en: write LANG=LANG with xx or en in"):
        load_text(tmp_path, options=TextOptions("codes", "xx", "en", tokenizer_lang=("en",)))


def test_a_strange_language_is_tokenised_by_the_rules_of_another(
    prepared_folder: Path, tmp_path: Path
) -> None:
    """What the message asks for; the exported folder keeps it."""
    options = TextOptions(prepared_folder / "codes", "xx", "en", tokenizer_lang=("xx=de",))
    (tmp_path / "other").mkdir()
    text = load_text(tmp_path / "other", options=options)
    assert (text.source_lang, text.pipeline.source.language) == ("xx", "de")
    assert text.settings("codes")["tokenizer_langs"] == {"xx": "de", "en": "en"}
    with pytest.raises(UsageError, match="--tokenizer-lang does not go with --sentencepiece-model"):
        load_text(
            tmp_path / "other",
            options=TextOptions(
                None, "xx", "en", sentencepiece_model="m", tokenizer_lang=("xx=de",)
            ),
        )
