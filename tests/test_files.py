"""Files appear whole or not at all."""

import ast
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from admin_nmt import files
from admin_nmt.errors import UserError
from admin_nmt.json_files import read_json, write_json
from tests.support.sources import nodes


def test_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with files.atomic_write(path) as stream:
        stream.write("äöü\n")
        assert not path.exists()
    assert path.read_bytes() == "äöü\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(RuntimeError), files.atomic_write(path) as stream:
        stream.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with files.atomic_write(path, "wb") as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_full_disk_is_one_line_and_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    expected = pytest.raises(UserError, match=r"cannot write .*out\.txt: No space left")
    with expected, files.atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for content in ("first", "second"):
        (tmp_path / ".out.new.tmp").mkdir()  # what a killed process leaves
        (tmp_path / ".out.new.tmp" / "half").touch()
        with files.atomic_folder(output) as made:
            (made / content).touch()
        assert [path.name for path in output.iterdir()] == [content]
    assert list(tmp_path.iterdir()) == [output]


def test_two_processes_do_not_fill_one_folder(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with files.atomic_folder(output) as made:
        (made / "first").touch()
        with (
            pytest.raises(UserError, match=r"another run of admin-nmt is at work in .*out: wait"),
            files.atomic_folder(output),
        ):
            pass
        (made / "second").touch()
    assert sorted(path.name for path in output.iterdir()) == ["first", "second"]
    assert list(tmp_path.iterdir()) == [output]


def test_a_killed_process_does_not_block_its_folder(tmp_path: Path) -> None:
    output = tmp_path / "out"
    code = "import os, signal, sys; from admin_nmt.files import atomic_folder\n"
    code += "with atomic_folder(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)"
    process = subprocess.run([sys.executable, "-c", code, str(output)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} == {".out.new.tmp", ".out.lock"}
    with files.atomic_folder(output) as made:
        (made / "whole").touch()
    assert list(tmp_path.iterdir()) == [output]


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "old").touch()
    with pytest.raises(UserError, match="cannot write"), files.atomic_folder(output) as new:
        new.rmdir()
    with pytest.raises(RuntimeError), files.atomic_folder(output) as new:
        raise RuntimeError
    assert (output / "old").exists()
    assert list(tmp_path.iterdir()) == [output]


def test_an_error_that_is_not_about_the_file_passes(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), files.atomic_write(tmp_path / "out.txt"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert list(tmp_path.iterdir()) == []


def test_missing_or_unusable_folder_is_named(tmp_path: Path) -> None:
    expected = pytest.raises(UserError, match=r"cannot write .*nowhere")
    with expected, files.atomic_write(tmp_path / "nowhere" / "out.txt"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to directory"):
        files.make_directory(tmp_path / "file" / "below")
    assert files.make_directory(tmp_path / "a" / "b").is_dir()


def test_free_space_is_checked_with_both_figures(tmp_path: Path) -> None:
    files.require_free_space(tmp_path, 1)
    with pytest.raises(UserError, match=r"MiB free, about \d+ MiB needed"):
        files.require_free_space(tmp_path, 1 << 60)


def test_sha256_of_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_nothing_is_written_under_its_final_name() -> None:
    """Methods that write a file in one call; what has to be atomic goes through `atomic_write`."""
    found = {
        (path, node.func.attr)
        for path, node in nodes("admin_nmt", "studies")
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("write_text", "write_bytes", "savefig")
    }
    assert found == {
        ("admin_nmt/analysis/plots.py", "savefig"),  # into a stream of `atomic_write`
        (
            "admin_nmt/synthetic_data/back_translation.py",
            "write_text",
        ),  # in a folder that is renamed
    }


def test_json_keeps_names_that_are_no_text(tmp_path: Path) -> None:
    content = {"path": os.fsdecode(b"r\xfcn.pt"), "language": "ü"}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content


def test_last_line_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for content, last in ((b"", ""), (b"\n", ""), (b"first\nl\xe4st\n\n", "l\ufffdst")):
        log.write_bytes(content)
        assert files.last_line(log) == last
