"""Lines come out of every kind of archive as they went in, and damage is named."""

import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin_nmt.data.archives import apply_rules, read_lines, read_pairs
from admin_nmt.data.corpora import Rules, Source
from admin_nmt.data.corpus_files import load_corpus
from admin_nmt.errors import UserError


def write_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),  # no final newline
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\rb\n", ["a\rb"]),  # a lone carriage return does not end a line
        (b"\n\na", ["", "", "a"]),
        (b"", []),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),  # byte order mark at the start only
        ("a\u2028b\x85c\x0cd\n".encode(), ["a\u2028b\x85c\x0cd"]),
    ],
)
def test_only_a_line_feed_ends_a_line(tmp_path, data, lines):
    plain, packed = tmp_path / "t.de", tmp_path / "t.de.gz"
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    write_tar(
        tmp_path / "t.tgz", {"x/other": b"1\n", "x/t.de": data, "x/t.de.gz": gzip.compress(data)}
    )
    assert list(read_lines(plain, None)) == lines
    assert list(read_lines(packed, None)) == lines
    assert list(read_lines(tmp_path / "t.tgz", "x/t.de")) == lines
    assert list(read_lines(tmp_path / "t.tgz", "x/t.de.gz")) == lines


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_tar_compression_and_dot_slash_names(tmp_path, mode):
    path = tmp_path / "archive"
    big = b"".join(b"line %d\n" % number for number in range(50_000))
    write_tar(path, {"./a/one": big, "./a/two": b"2\n"}, mode)
    assert list(read_lines(path, "a/two")) == ["2"]
    assert list(read_lines(path, "a/one")) == big.decode().splitlines()


def test_invalid_utf8_is_named_or_replaced(tmp_path):
    path = tmp_path / "t.de"
    path.write_bytes(b"gut\nM\xfcnchen\n")
    with pytest.raises(UserError, match=r"t\.de, line 2: not UTF-8 text"):
        list(read_lines(path, None))
    assert list(read_lines(path, None, "replace")) == ["gut", "M\ufffdnchen"]


def test_damage_and_absence_are_one_line_with_the_name(tmp_path):
    good = tmp_path / "good.tgz"
    write_tar(good, {"de-en/train.tags.de-en.de": bytes(range(32, 127)) * 3000})
    cut = tmp_path / "cut.tgz"
    cut.write_bytes(good.read_bytes()[:300])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"abc\n" * 999)[:-9])
    (tmp_path / "not.tgz").write_bytes(b"<html>not found</html>")
    cases = {
        ("cut.tgz", "de-en/train.tags.de-en.de"): "cut.tgz:.* is damaged or incomplete",
        ("cut.gz", None): "cut.gz is damaged or incomplete",
        ("not.tgz", "x"): "not.tgz:x is damaged or incomplete",
        ("none.gz", None): "file not found: .*none.gz",
        ("good.tgz", "de-en/train.tags.de-en.en"): "good.tgz has no member .*; it has .*de-en.de",
    }
    for (name, member), message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            list(read_lines(tmp_path / name, member))
        assert "\n" not in str(error.value)


def test_unequal_sides_are_refused_with_names_and_counts(tmp_path):
    for language, count in (("de", 3), ("en", 5)):
        (tmp_path / f"train.{language}").write_text("x\n" * count)
    files = {f"train.{language}": tmp_path / f"train.{language}" for language in ("de", "en")}
    pairs = read_pairs(Source("train.{lang}"), ("de", "en"), files, "error")
    with pytest.raises(UserError, match=r"train\.de has 3, .*train\.en has 5"):
        list(pairs)


def test_talk_rules_of_iwslt14():
    rules = load_corpus("iwslt14-de-en").sources["train"][0].rules
    lines = [
        "<url>http://x</url>",
        "<keywords>talks, a</keywords>",
        "<speaker>Al Gore</speaker>",
        "<talkid>1</talkid>",
        "<title>Al Gore: <b>Klima</b></title>",
        "<description>Mit &amp; Humor</description>",
        " Danke. ",
        "",
    ]
    assert list(apply_rules(lines, rules)) == [
        "<speaker>Al Gore</speaker>",
        "Al Gore: <b>Klima</b>",
        "Mit &amp; Humor",
        "Danke.",
        "",
    ]


@pytest.mark.parametrize("name", ["iwslt14-de-en", "wmt14-en-de", "wmt14-en-fr"])
def test_segment_rules(name):
    rules = load_corpus(name).sources["test"][0].rules
    lines = [
        '<?xml version="1.0"?>',
        '<doc docid="535" genre="lectures">',
        "<title>not text</title>",
        '<seg id="1"> It’s R&amp;D .  </seg>',
        '\t<seg id="23">a <i>b</i></seg>',
        '<seg id="3"></seg>',
        "</doc>",
    ]
    assert list(apply_rules(lines, rules)) == ["It’s R&amp;D .", "a <i>b</i>", ""]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"))))
def test_any_text_survives_the_round_trip(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("round") / "t.gz"
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))
    assert list(read_lines(path, None)) == lines


def test_rules_do_nothing_unless_told():
    assert list(apply_rules([" <url> a ", ""], Rules())) == [" <url> a ", ""]
