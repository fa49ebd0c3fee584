"""The corpus files hold the published conventions, and bad ones are refused with file and key."""

from pathlib import Path

import pytest
import yaml

from admin_nmt.data.corpora import Corpus, fill
from admin_nmt.data.corpus_files import FOLDER, corpus_names, load_corpus
from admin_nmt.data.custom_corpus import custom_corpus
from admin_nmt.errors import UsageError, UserError


def members(corpus: Corpus, name: str) -> list[str]:
    """`archive:member` of a set, source side then target side of each pair of files."""
    return [
        f"{fill(source.archive, corpus.languages, side)}:"
        f"{fill(source.member or '', corpus.languages, side)}"
        for source in corpus.sources[name]
        for side in (0, 1)
    ]


def test_every_corpus_file_loads_with_every_variant():
    assert {"iwslt14-de-en", "multi30k", "wmt14-en-de", "wmt14-en-fr"} <= set(corpus_names())
    for name in corpus_names():
        variants = yaml.safe_load((FOLDER / f"{name}.yaml").read_text()).get("variants", {})
        for variant in [None, *variants]:
            assert load_corpus(name, variant).name == name


def test_iwslt14_conventions():
    corpus = load_corpus("iwslt14-de-en")
    assert corpus.languages == ("de", "en")
    assert members(corpus, "train") == [
        "de-en.tgz:de-en/train.tags.de-en.de",
        "de-en.tgz:de-en/train.tags.de-en.en",
    ]
    assert [name.removeprefix("de-en.tgz:de-en/IWSLT14.") for name in members(corpus, "test")] == [
        f"{part}.de-en.{language}.xml"
        for part in ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
        for language in ("de", "en")
    ]
    assert corpus.valid_every == 23
    assert (corpus.lowercase, corpus.aggressive_hyphens, corpus.normalize) == (True, False, ())
    cleaning = corpus.cleaning
    assert (cleaning.when, cleaning.ratio) == ("before_bpe", 1.5)
    assert (cleaning.min_length, cleaning.max_length) == (1, 175)
    assert (corpus.bpe_tokens, corpus.joined_dictionary) == (10000, False)


@pytest.mark.parametrize(("name", "every"), [("wmt14-en-de", 100), ("wmt14-en-fr", 1333)])
def test_wmt14_conventions(name, every):
    corpus = load_corpus(name)
    assert corpus.valid_every == every
    assert corpus.normalize == ("train", "valid")
    assert (corpus.lowercase, corpus.aggressive_hyphens) == (False, True)
    cleaning = corpus.cleaning
    assert (cleaning.when, cleaning.ratio) == ("after_bpe", 1.5)
    assert (cleaning.min_length, cleaning.max_length) == (1, 250)
    assert corpus.bpe_tokens == 40000


def test_wmt14_members():
    corpus = load_corpus("wmt14-en-de")
    assert members(corpus, "train")[1::2] == [
        "training-parallel-europarl-v7.tgz:training/europarl-v7.de-en.de",
        "training-parallel-commoncrawl.tgz:commoncrawl.de-en.de",
        "training-parallel-nc-v12.tgz:training/news-commentary-v12.de-en.de",
    ]
    assert members(corpus, "test") == [
        "test-full.tgz:test-full/newstest2014-deen-src.en.sgm",
        "test-full.tgz:test-full/newstest2014-deen-ref.de.sgm",
    ]
    icml17 = load_corpus("wmt14-en-de", "icml17")
    assert members(icml17, "train")[-1] == (
        "training-parallel-nc-v9.tgz:training/news-commentary-v9.de-en.de"
    )
    assert members(icml17, "train")[:4] == members(corpus, "train")[:4]
    french = load_corpus("wmt14-en-fr")
    assert members(french, "train")[1::2] == [
        "training-parallel-europarl-v7.tgz:training/europarl-v7.fr-en.fr",
        "training-parallel-commoncrawl.tgz:commoncrawl.fr-en.fr",
        "training-parallel-un.tgz:un/undoc.2000.fr-en.fr",
        "training-parallel-nc-v9.tgz:training/news-commentary-v9.fr-en.fr",
        "training-giga-fren.tar:giga-fren.release2.fixed.fr.gz",
    ]


def test_admin_variant_is_the_recipe_of_the_paper():
    corpus = load_corpus("wmt14-en-de", "admin")
    assert (corpus.bpe_tokens, corpus.joined_dictionary) == (32764, True)
    assert members(corpus, "valid") == [
        "dev.tgz:dev/newstest2013.en",
        "dev.tgz:dev/newstest2013.de",
    ]
    assert corpus.valid_every is None
    assert (corpus.cleaning.when, corpus.cleaning.max_length) == ("before_bpe", 80)


MINIMAL = {
    "languages": {"source": "de", "target": "en"},
    "archives": {"a.tgz": {"url": "http://localhost/a.tgz", "checksum": None}},
    "sets": {
        "train": [{"archive": "a.tgz", "member": "train.{lang}"}],
        "valid": {"every": 10},
        "test": [{"archive": "a.tgz", "member": "test.{lang}"}],
    },
    "bpe_tokens": 100,
}


def test_a_new_corpus_needs_only_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    corpus = load_corpus(str(path))
    assert (corpus.name, corpus.bpe_tokens, corpus.valid_every) == ("mine", 100, 10)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"bpe_tokens": None}, "bpe_tokens: it should be a valid integer, not None"),
        ({"bpe_tokens": "many"}, "bpe_tokens: it should be a valid integer, not 'many'"),
        ({"bpe_tokens": True}, "bpe_tokens: it should be a valid integer, not True"),
        ({"bpe_tokens": 0}, "bpe_tokens (BPE merges) must be at least 1, not 0"),
        ({"bpe_token": 5}, "unknown key 'bpe_token'"),
        ({"languages": {"source": "de"}}, "languages: key 'target' is missing"),
        ({"languages": {"source": "de", "target": "de"}}, "are both 'de'"),
        ({"languages": {"source": "de", "target": "en-US"}}, "language code 'en-US'"),
        ({"archives": {"a.tgz": {"url": "x", "checksum": "sha256:12"}}}, "checksum must be null"),
        ({"archives": {"b.tgz": {"url": "x"}}}, "archive 'a.tgz' of sets is not under archives"),
        ({"text": {"invalid_utf8": "ignore"}}, "invalid_utf8 must be error or replace"),
        ({"text": {"normalize": ["dev"]}}, "normalize may name train, valid, test"),
        ({"text": {"substitute": {"dev": []}}}, "substitute may name train, valid, test"),
        ({"text": {"substitute": {"test": [["(", ""]]}}}, "bad regular expression"),
        ({"published_lines": {"dev": 3}}, "published_lines may name train, valid, test"),
        ({"cleaning": {"when": "never"}}, "cleaning must be before_bpe or after_bpe"),
        ({"cleaning": {"ratio": 0.5}}, "ratio must be at least 1, not 0.5"),
        (
            {"cleaning": {"min_length": 9, "max_length": 3}},
            "1 <= min_length <= max_length, not 9 and 3",
        ),
        ({"rules": {"r": {"substitute": [["(", ""]]}}}, "bad regular expression"),
        ({"rules": {"r": {"substitute": [["x", "a\nb"]]}}}, "would make two lines of one"),
        ({"text": {"substitute": {"train": [["x", r"\n"]]}}}, "would make two lines of one"),
        (
            {"rules": {"r": {"substitute": ["x"]}}},
            "rules.r.substitute.0: it should be a valid array, not 'x'",
        ),
        ({"cleaning": {"ratio": "9"}}, "cleaning.ratio: it should be a valid number, not '9'"),
        ({"cleaning": {"rato": 9}}, "cleaning: unknown key 'rato'"),
        ({"archives": {"a.tgz": None}}, "archives.a.tgz: it should be an object, not None"),
        ({"text": ["lowercase"]}, "text: it should be an object"),
        (
            {"sets": MINIMAL["sets"] | {"train": [{"archive": "a.tgz", "rules": "none"}]}},
            "no rules named 'none'",
        ),
        (
            {"sets": MINIMAL["sets"] | {"train": [{"archive": "a.tgz", "member": "{language}"}]}},
            "the placeholders are {lang} and {role}",
        ),
        ({"sets": {"train": [], "valid": {"every": 10}}}, "key 'test' is missing"),
    ],
)
def test_bad_corpus_files_are_refused_naming_the_key(tmp_path, changes, complaint):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | changes))
    with pytest.raises(UserError) as error:
        load_corpus(str(path))
    assert str(path) in str(error.value)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_corpora_and_variants_are_named_with_the_known_ones(tmp_path):
    with pytest.raises(UsageError, match=r"unknown corpus 'wmt99': choose one of iwslt14-de-en"):
        load_corpus("wmt99")
    with pytest.raises(UsageError, match=r"no variant 'x': it has icml17, admin"):
        load_corpus("wmt14-en-de", "x")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"cannot read corpus file .*broken\.yaml"):
        load_corpus(str(tmp_path / "broken.yaml"))


@pytest.mark.parametrize(
    ("subword", "when"), [(None, "before_bpe"), ("sentencepiece", "after_bpe")]
)
def test_custom_text_is_cleaned_by_words_where_it_has_them(subword: str | None, when: str) -> None:
    corpus, files = custom_corpus(("de", "en"), {"train": "x"}, subword=subword)
    assert corpus.cleaning.when == when
    assert files == {"train.de": Path("x.de"), "train.en": Path("x.en")}
