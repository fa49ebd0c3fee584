"""Files and folders that are either whole or absent: write to a temporary name, then rename."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from admin_nmt.errors import UserError

#: What a disk refuses to write with.
_DISK_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w", **kwargs: Any) -> Iterator[IO[Any]]:
    """Open `path` for writing; it appears under its name only when the block ends well.

    The temporary file lies in the same folder, so the final rename is atomic. Text is written as
    UTF-8 with Unix line ends unless `kwargs` says otherwise. An existing file keeps its
    permissions; a new one gets those of the umask.

    Raises:
        UserError: the folder is missing or unwritable, or the disk is full. Other errors of the
            block, such as a pipe that closed, are not about this file and pass.
    """
    path = Path(path)
    if "b" not in mode:
        kwargs.setdefault("encoding", "utf-8")
        kwargs.setdefault("newline", "\n")
    with _writing(path):
        handle, temporary = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
        )
    try:
        with _writing(path, _DISK_ERRNOS), os.fdopen(handle, mode, **kwargs) as stream:
            yield stream
        with _writing(path):
            Path(temporary).chmod(_permissions(path))
            Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder that takes the place of `path`, with all that is there, when the block ends well, and
    only then.

    It is filled beside `path`, as `.NAME.new.tmp`; what a killed process left there is removed. Meanwhile
    no other process can do the same: `.NAME.lock` is locked.

    Raises:
        UserError: it cannot be written, or another process is writing it; `path` is as it was.
    """
    path = Path(path)
    place = path.absolute()
    new, old = (place.with_name(f".{place.name}.{which}.tmp") for which in ("new", "old"))
    with locked(place.with_name(f".{place.name}.lock"), path):
        try:
            with _writing(path):
                _remove(new)
                new.mkdir()
            with _writing(path, _DISK_ERRNOS):
                yield new
            with _writing(path):
                _remove(old)
                if place.exists():
                    place.rename(old)
                try:
                    new.rename(place)
                except OSError:
                    if old.exists():
                        old.rename(place)
                    raise
                _remove(old)
        finally:
            shutil.rmtree(new, ignore_errors=True)


@contextmanager
def locked(lock: Path, place: Path) -> Iterator[None]:
    """Hold the file `lock` for this process alone. It is removed in the end; one that a killed process
    left is nobody's.

    Args:
        lock: made if it is missing; its folder is there.
        place: what it guards, for messages.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock, blocking=False)
    with _writing(place):
        try:
            held.acquire()
        except Timeout:
            raise UserError(
                f"another run of admin-nmt is at work in {place}: wait until it has ended"
            ) from None
    try:
        yield
    finally:
        # Before it is released: nobody else's lock is removed.
        lock.unlink(missing_ok=True)
        held.release()


def _remove(folder: Path) -> None:
    """A folder, or a link to one, if it is there."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


@contextmanager
def _writing(path: Path, numbers: Container[int] | None = None) -> Iterator[None]:
    """An error of the system in the block becomes one line about `path`.

    Args:
        path: the file that was to be written.
        numbers: of errors that are about it; None for all.
    """
    try:
        yield
    except OSError as error:
        if numbers is not None and error.errno not in numbers:
            raise
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _permissions(path: Path) -> int:
    """Mode bits for a file written at `path`: those it has, else those of the umask."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def make_directory(path: str | os.PathLike[str]) -> Path:
    """Create the folder `path` with its parents and check that files can be written there.

    Raises:
        UserError: it cannot be created, or is not writable.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"cannot write to directory {path}: {error.strerror or error}") from error
    return path


def require_free_space(path: str | os.PathLike[str], num_bytes: int) -> None:
    """Refuse early when the disk that holds `path` has fewer than `num_bytes` bytes free.

    Raises:
        UserError: with both figures in MiB.
    """
    free = shutil.disk_usage(path).free
    if free < num_bytes:
        raise UserError(
            f"too little disk space for {path}: {free / 2**20:.0f} MiB free, "
            f"about {num_bytes / 2**20:.0f} MiB needed"
        )


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def last_line(log: str | os.PathLike[str]) -> str:
    """What a program said last in its log; empty where it ended before it said anything.

    Raises:
        OSError: the log cannot be read.
    """
    lines = Path(log).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
