"""Raw text goes through the pipeline of a prepared folder and comes back."""

import ast
import json
import pickle

import pytest

from admin_nmt.data import bpe
from admin_nmt.data.text_pipeline import FILE_NAME, TextPipeline
from admin_nmt.errors import UserError
from tests.support.sources import nodes

SETTINGS = {
    "source_lang": "de",
    "target_lang": "en",
    "tokenizer_langs": {"de": "de", "en": "en"},
    "normalize": True,
    "aggressive_hyphens": True,
    "lowercase": False,
    "bpe": {"codes": "codes", "separator": "@@"},
}
SENTENCES = [
    'The well-known "dog" isn\'t here, is it?',
    "Prices (in euros) rose by 1,000 & fell [again].",
    "A | B < C; 3 > 2!",
    "",
]


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data-bin"
    data.mkdir()
    (data / "preparation.json").write_text(json.dumps(SETTINGS))
    bpe.learn(
        bpe.count_words(["der Hund und die Katze the dog and the cat"] * 3), 15, data / "codes"
    )
    return tmp_path


@pytest.mark.parametrize("where", ["data-bin", "."])
def test_target_text_comes_back_from_its_subwords(folder, where):
    text = TextPipeline.load(folder / where)
    for line in SENTENCES:
        subwords = text.subwords.split(text.target(line))
        assert text.decode(subwords) == line
        assert subwords == " ".join(subwords.split())


def test_settings_of_the_folder_are_applied(folder):
    text = TextPipeline.load(folder)
    assert bpe.merge(text.encode("Der „Hunde-Freund“ –")) == "Der &quot; Hunde @-@ Freund &quot; -"
    changed = SETTINGS | {"lowercase": True, "normalize": False, "aggressive_hyphens": False}
    (folder / "data-bin" / "preparation.json").write_text(json.dumps(changed))
    text = TextPipeline.load(folder)
    assert bpe.merge(text.encode("Der „Hunde-Freund“ –")) == "der „ hunde-freund “ –"


def test_it_can_be_sent_to_worker_processes(folder):
    text = TextPipeline.load(folder)
    assert pickle.loads(pickle.dumps(text)).encode("Der Hund") == text.encode("Der Hund")


def test_what_was_replaced_in_the_training_text_is_replaced(folder):
    path, line = folder / "data-bin" / "preparation.json", "der Hund\u2019s"
    plain = TextPipeline.load(folder)
    replacing = {"train": [["\u2019", "'"]], "test": [["Hund", "Katze"]]}
    path.write_text(json.dumps({**SETTINGS, "normalize": False, "substitute": replacing}))
    text = TextPipeline.load(folder)
    assert text.source(line) == text.source("der Hund's") == "der Hund &apos; s"
    for nothing in ([], {}, {"test": [["Hund", "Katze"]]}):
        path.write_text(json.dumps({**SETTINGS, "substitute": nothing}))
        assert TextPipeline.load(folder) == plain


def test_folders_without_a_usable_preparation_are_refused(folder):
    with pytest.raises(UserError, match=r"has no preparation\.json: give a folder made by"):
        TextPipeline.load(folder / "nowhere")
    path = folder / "data-bin" / "preparation.json"
    path.write_text(json.dumps({**SETTINGS, "tokenizer_langs": {}}))
    with pytest.raises(UserError, match=r"cannot read .*preparation\.json: KeyError: 'de'"):
        TextPipeline.load(folder)
    for damage, message in (("{", "is not valid JSON"), ("[]", "it holds no JSON object")):
        path.write_text(damage)
        with pytest.raises(UserError, match=rf"preparation\.json .*{message}"):
            TextPipeline.load(folder)
    path.write_text(json.dumps(SETTINGS))
    (folder / "data-bin" / "codes").unlink()
    bpe.load.cache_clear()
    with pytest.raises(UserError, match="cannot read BPE codes"):
        TextPipeline.load(folder)


def test_the_name_of_the_file_is_written_once():
    found = [
        path
        for path, node in nodes("admin_nmt", "benchmarks", "scripts", "studies")
        if isinstance(node, ast.Constant) and node.value == FILE_NAME
    ]
    assert found == ["admin_nmt/data/text_pipeline.py"]
