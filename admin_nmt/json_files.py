"""JSON files that this package writes; those it reads again say what they are, and in which version."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write `content` as JSON, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    # In names of files that are no text these escapes are those of JSON, too.
    with atomic_write(path, errors="backslashreplace") as stream:
        json.dump(content, stream, indent=2, ensure_ascii=False)
        stream.write("\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def read_json_object(path: str | os.PathLike[str], remedy: str = "") -> dict[str, Any]:
    """Read a JSON file that holds an object; `remedy` says what to do where it does not.

    Raises:
        UserError: the file is missing, or not JSON, or holds something else.
    """
    advice = f"; {remedy}" if remedy else ""
    try:
        content = read_json(path)
    except UserError as error:
        raise UserError(f"{error}{advice}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object{advice}")
    return content


def require_same_settings(
    path: Path, settings: Mapping[str, Any], earlier: Mapping[str, Any] | None = None
) -> None:
    """Say in `path` how the translations in its folder are made, or refuse to mix others in.

    Args:
        path: written if it is missing, else left as it is.
        settings: name -> value.
        earlier: name -> what an earlier version recorded for the same value; None for nothing. It is
            accepted too.

    Raises:
        UserError: names the first setting that differs, or says that the file is damaged.
    """
    if not path.exists():
        write_json(path, settings)
        return
    before = read_json_object(path, f"delete {path.parent}")
    earlier = earlier or {}
    for name, value in settings.items():
        if name in earlier and before.get(name) == earlier[name]:
            continue
        if before.get(name) != value:
            raise UserError(
                f"{path.parent} holds translations with another {name} "
                f"({before.get(name, 'not recorded')}, now {value}): give another --output, or "
                "remove that folder"
            )


def write_document(
    path: str | os.PathLike[str], kind: str, version: int, content: Mapping[str, Any]
) -> None:
    """Write `content` so that `read_document` finds the `kind` of file and its `version`.

    Raises:
        UserError: the file cannot be written.
    """
    write_json(path, {"format": f"admin_nmt {kind}", "version": version, **content})


def read_document(
    path: str | os.PathLike[str], kind: str, version: int, command: str
) -> dict[str, Any]:
    """Read what `write_document` wrote; `command` is named when it is something else.

    A file that states no version, as one written by hand, is taken for one of this version.

    Raises:
        UserError: the file is missing, no JSON, of another kind or of another version.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != f"admin_nmt {kind}":
        raise UserError(f"{path} was not written by '{command}'")
    if (found := content.get("version", version)) != version:
        raise UserError(f"{path} has version {found}, expected {version}")
    return content
