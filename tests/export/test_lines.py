"""Lines from files that may hold anything."""

import gzip
import io
import logging
import os
import threading
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from admin_nmt.data.archives import open_text
from admin_nmt.errors import UserError
from admin_nmt.export.lines import MAX_LINE_BYTES, count_lines, read_lines

text = st.lists(st.text(st.characters(exclude_characters="\n\r\ufeff", exclude_categories=["Cs"])))


@given(text, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_only_line_feeds_end_lines(lines: list[str], end: str, last: bool) -> None:
    """U+2028, vertical tabs and their like are text: lines stay parallel to `wc -l`."""
    data = "".join(line + end for line in lines) + "z" * last
    assert list(read_lines(io.BytesIO(data.encode()))) == lines + ["z"] * last


@given(st.binary())
def test_any_bytes_give_as_many_lines_as_there_are(data: bytes) -> None:
    found = list(read_lines(io.BytesIO(data)))
    assert len(found) == data.count(b"\n") + (not data.endswith(b"\n") and data != b"")
    assert not any("\n" in line for line in found)


def test_invalid_utf8_is_replaced_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(read_lines(io.BytesIO(b"good\nba\xffd\n\xc3"))) == ["good", "ba�d", "�"]
    assert "line 2 is not valid UTF-8" in caplog.text
    assert "line 3 is not valid UTF-8" in caplog.text
    assert "line 1" not in caplog.text


@pytest.mark.parametrize("character", ["a", "ä", "€", "😀"])
@pytest.mark.parametrize("shift", range(4))
def test_an_endless_line_is_cut_between_characters_and_named(
    caplog: pytest.LogCaptureFixture, character: str, shift: int
) -> None:
    long = "x" * shift + character * MAX_LINE_BYTES
    with caplog.at_level(logging.WARNING):
        first, second = read_lines(io.BytesIO(f"{long}\nnext\n".encode()))
    assert long.startswith(first) and len(first.encode()) > MAX_LINE_BYTES - 4
    assert second == "next"
    assert f"line 1 is longer than {MAX_LINE_BYTES} bytes" in caplog.text
    assert "UTF-8" not in caplog.text


@given(st.binary())
def test_lines_are_counted_as_they_are_read(data: bytes) -> None:
    import tempfile

    assume(not data.startswith(b"\x1f\x8b"))  # gzip
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        assert count_lines(Path(file.name)) == len(list(read_lines(io.BytesIO(data))))


def test_a_missing_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read --input .*missing: No such file"):
        count_lines(tmp_path / "missing")


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    text = "\ufeffHund.\n\ufeffKatze.\n"
    assert list(read_lines(io.BytesIO(text.encode()))) == ["Hund.", "\ufeffKatze."]


def test_a_pipe_is_left_to_its_one_reader(tmp_path: Path) -> None:
    """What writes into it would end when a first reader went away."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(
        target=(tmp_path / "pipe").write_bytes, args=(b"Hund.\nKatze.\n",), daemon=True
    )
    writer.start()
    assert count_lines(tmp_path / "pipe") is None
    with open_text(tmp_path / "pipe") as stream:
        assert list(read_lines(stream)) == ["Hund.", "Katze."]
    writer.join(timeout=60)
    assert not writer.is_alive()


def test_gzip_files_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "text.de.gz"
    path.write_bytes(gzip.compress("\ufeffHund.\nKätzchen.".encode()))
    assert count_lines(path) == 2
    with open_text(path) as stream:
        assert list(read_lines(stream)) == ["Hund.", "Kätzchen."]
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match=r"text\.de\.gz is damaged or incomplete"):
        count_lines(path)
    with pytest.raises(UserError, match="is damaged or incomplete"), open_text(path) as stream:
        list(read_lines(stream))


def test_a_folder_is_no_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read --input .*: Is a directory"):
        count_lines(tmp_path)
