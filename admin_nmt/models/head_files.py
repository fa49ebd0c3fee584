"""Heads that an option names, as a list or as a file of them."""

import os
from pathlib import Path

from admin_nmt.errors import UsageError, UserError
from admin_nmt.json_files import read_document
from admin_nmt.modules.head_names import Head, parse_heads

#: What every file about heads that `admin-nmt` writes says of itself.
DOCUMENT, VERSION = "heads", 1


def read_heads(given: str, option: str) -> list[Head]:
    """The heads that an option means: a list such as `E:1:3,A:2:1`, or a file.

    The file is one that `admin-nmt prune --list` wrote (or JSON with its key `removed`), or text: the
    descriptors of Michel et al.'s code (`E:1:2 A:3:4,5`), separated by spaces, commas or line ends;
    what follows a `#` is left out.

    Raises:
        UserError: the file cannot be read, or names no heads.
        UsageError: neither a file nor a list of heads.
    """
    try:
        return parse_heads(given, option)
    except UsageError:
        # `Path.exists` raises on strings longer than a file name may be; `os.path.exists` does not.
        if not os.path.exists(given):  # noqa: PTH110
            if Path(given).suffix or os.sep in given:
                raise UserError(f"{option}: file not found: {given}") from None
            raise
    try:
        text = Path(given).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {given}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {given} is not a text file") from error
    if text.lstrip().startswith(("{", "[")):
        content = read_document(given, DOCUMENT, VERSION, "admin-nmt prune --list")
        removed = content.get("removed")
        if not isinstance(removed, list):
            raise UserError(
                f"{option} {given} names no heads; 'admin-nmt prune --list' writes such a file"
            )
        return parse_heads(",".join(map(str, removed)), f"{option} {given}") if removed else []
    words = " ".join(line.partition("#")[0] for line in text.splitlines())
    if not words.strip():
        raise UserError(f"{option} {given} names no heads")
    return parse_heads(words, f"{option} {given}")
