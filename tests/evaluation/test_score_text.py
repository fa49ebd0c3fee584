"""Contracts: reading text, joining BPE, undoing tokenisation, splitting compounds."""

import gzip
import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_nmt.data import bpe
from admin_nmt.errors import UserError
from admin_nmt.evaluation.text import (
    detokenize,
    read_lines,
    require_equal_counts,
    split_compounds,
)


def test_only_line_feeds_end_lines_and_trailing_white_space_goes(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("\ufeffa\u2028b \r\n\n  c\x85d\n".encode())
    assert read_lines(path) == ["a\u2028b", "", "  c\x85d"]


def test_gzip_is_recognised_by_content_not_by_name(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(gzip.compress(b"eins\nzwei"))
    assert read_lines(path) == ["eins", "zwei"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"fine\n\xff\xfe\n", "line 2: not UTF-8"),
        # A fixed time: with the present one the workers of a parallel run name the test differently.
        (gzip.compress(b"text" * 100, mtime=0)[:20], "broken gzip"),
    ],
)
def test_unusable_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "broken.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"broken.txt.*{message}"):
        read_lines(path)


def test_missing_file_and_folder_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"file not found: .*nothing.txt"):
        read_lines(tmp_path / "nothing.txt")
    with pytest.raises(UserError, match=f"cannot read {tmp_path}"):
        read_lines(tmp_path)


def test_unequal_counts_are_refused_with_both_counts():
    with pytest.raises(UserError, match=r"a.txt has 2, b.txt has 3"):
        require_equal_counts("a.txt", ["x"] * 2, "b.txt", ["x"] * 3)


def test_bpe_pieces_are_joined_also_at_the_end_of_a_cut_off_sentence():
    assert bpe.merge("lo@@ w er@@ st") == "low erst"
    assert bpe.merge("lo@@ w er@@") == "low er"
    assert bpe.merge("mail @@ home") == "mail home"


def test_detokenisation_follows_the_target_language():
    assert detokenize(["Hello , world &apos;s end !", ""], "en") == ["Hello, world's end!", ""]
    assert detokenize(["l&apos; ami"], "fr") == ["l'ami"]


# By hand from s{(\S)-(\S)}{$1 ##AT##-##AT## $2}g.
COMPOUNDS = {
    "well-known": "well ##AT##-##AT## known",
    "a-b-c": "a ##AT##-##AT## b-c",  # the first match uses up the b
    "ab-cd-ef": "ab ##AT##-##AT## cd ##AT##-##AT## ef",
    "a--b": "a--b".replace("a--", "a ##AT##-##AT## -"),  # (a)-(-), then b has no hyphen left
    "- a -b c- -": "- a -b c- -",
    "é-b": "é ##AT##-##AT## b",
    "a-é-c": "a ##AT##-##AT## é ##AT##-##AT## c",  # é is two bytes: the second starts a match
    "": "",
}


@pytest.mark.parametrize(("line", "expected"), COMPOUNDS.items())
def test_compounds_are_split_as_defined(line, expected):
    assert split_compounds(line) == expected


@pytest.mark.skipif(shutil.which("perl") is None, reason="no perl")
@settings(max_examples=20, deadline=None)
@given(st.text(st.sampled_from("ab-é\u00a0日 \t"), max_size=30))
def test_compound_splitting_equals_perl(line):
    command = ["perl", "-pe", r"s{(\S)-(\S)}{$1 ##AT##-##AT## $2}g"]
    perl = subprocess.run(command, input=line.encode(), capture_output=True, check=True)
    assert split_compounds(line) == perl.stdout.decode()


@given(st.text(st.sampled_from("ab- "), max_size=20))
def test_compound_splitting_only_inserts_marks(line):
    assert re.sub(" ##AT##-##AT## ", "-", split_compounds(line)) == line
