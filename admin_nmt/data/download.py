"""Archives on disk: downloaded with retries, resumed where they broke off, and verified."""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from admin_nmt.data.corpora import Archive
from admin_nmt.errors import UserError
from admin_nmt.files import make_directory, require_free_space
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

RETRIES = 5
_TIMEOUT = 60.0  # seconds without any data
_BLOCK = 1 << 16  # at most so much is lost when the connection breaks


def local_archives(archives: Iterable[Archive], folder: Path) -> dict[str, Path]:
    """The archives that the user has in `folder`; no network is used.

    Raises:
        UserError: some are missing (all are named), or one has a wrong checksum.
    """
    archives = list(archives)
    missing = [archive for archive in archives if not (folder / archive.name).is_file()]
    if missing:
        names = ", ".join(f"{archive.name} (from {archive.url})" for archive in missing)
        raise UserError(f"--archives {folder} lacks {names}")
    for archive in progress(logger, "checksums", "files", archives, leave=False):
        verify(archive, folder / archive.name)
    return {archive.name: folder / archive.name for archive in archives}


def verify(archive: Archive, path: Path) -> None:
    """Check a file against its published checksum, if there is one.

    Raises:
        UserError: with both sums.
    """
    if archive.checksum is None:
        return
    algorithm, expected = archive.checksum.split(":")
    with path.open("rb") as stream:
        actual = hashlib.file_digest(stream, algorithm).hexdigest()
    if actual != expected:
        raise UserError(
            f"{path} has {algorithm} checksum {actual}, but {expected} is expected: "
            "the file is damaged or another one; get it again"
        )


def download(archives: Iterable[Archive], folder: Path, retries: int = RETRIES) -> dict[str, Path]:
    """Fetch what is not in `folder` yet, verified.

    A file appears under its name only when it is complete. What an interrupted download left is
    taken up again by the next try and, where a checksum guards against a mixture, the next run.

    Raises:
        UserError: no connection, an error of the server, a wrong checksum (both are named), or too
            little disk space.
    """
    make_directory(folder)
    return {archive.name: _fetch(archive, folder, retries) for archive in archives}


def _fetch(archive: Archive, folder: Path, retries: int) -> Path:
    """Have one archive in `folder`, with pooch."""
    import pooch
    import requests

    path = folder / archive.name
    if not path.exists() and archive.size is not None:
        require_free_space(folder, archive.size)
    if archive.checksum is None:
        _part(path).unlink(missing_ok=True)
    pooch.get_logger().setLevel(logging.WARNING)
    fetcher = pooch.create(
        folder,
        base_url="",
        registry={archive.name: archive.checksum},
        urls={archive.name: archive.url},
        retry_if_failed=retries,
    )
    try:
        fetcher.fetch(archive.name, downloader=resuming_downloader)
    except requests.exceptions.RequestException as error:
        raise UserError(
            f"cannot download {archive.url}: {_reason(error)}; run again to resume, or get the "
            "file by other means and give its folder as --archives"
        ) from error
    except ValueError as error:  # pooch's word for a wrong checksum; it names both
        raise UserError(f"{archive.url}: {error}") from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _reason(error: Exception) -> str:
    """The innermost cause, in one line: requests wraps it several times."""
    while error.args and isinstance(error.args[-1], Exception):
        error = error.args[-1]
    cause = getattr(error, "reason", None)
    return " ".join(str(cause if isinstance(cause, Exception) else error).split())


def resuming_downloader(url: str, output: str | IO[Any], fetcher: Any) -> None:
    """A downloader for pooch that keeps what it has in `NAME.part` and goes on from there.

    pooch's own starts afresh each time. The server may ignore the wish and send everything.
    """
    import requests

    path = Path(str(output))
    part = _part(fetcher.abspath / next(name for name in fetcher.urls if fetcher.urls[name] == url))
    have = part.stat().st_size if part.exists() else 0
    # Identity: otherwise requests would unpack what a server marks as gzip-encoded.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            # The part is as long as the file, or longer: its checksum tells which.
            part.replace(path)
            return
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0
        total = have + int(response.headers.get("Content-Length", 0))
        _save(response, part, have, total)
    part.replace(path)


def _save(response: Any, part: Path, have: int, total: int) -> None:
    """Append the body to `part` from byte `have` on, with a bar or log lines."""
    logger.info("downloading %s, %.0f MiB, from byte %d", part.stem, total / 2**20, have)
    with (
        part.open("r+b" if have else "wb") as stream,
        progress(
            logger, part.stem, "B", initial=have, total=total or None, unit_scale=True
        ) as bar,
    ):  # fmt: skip
        stream.seek(have)
        for block in response.iter_content(_BLOCK):
            stream.write(block)
            bar.update(len(block))
