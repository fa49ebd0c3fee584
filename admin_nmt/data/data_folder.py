"""What a folder of `fairseq-preprocess` holds, read from the names and heads of its files."""

import os
import re
import struct
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path

from admin_nmt.errors import UserError

#: `<s>`, `<pad>`, `</s>` and `<unk>` are in every fairseq vocabulary but in no dictionary file.
NUM_SPECIAL_SYMBOLS = 4

_NAME = re.compile(r"(?P<subset>[^.]+)\.(?P<pair>[^.]+-[^.]+)\.(?P<language>[^.]+)\.(?:idx|bin)")
# Head of an index as `fairseq-preprocess` writes it: magic, version, type of number, sentences.
_INDEX_MAGIC = b"MMIDIDX\x00\x00"
_INDEX_HEAD = struct.Struct("<9sQBQ")


def subsets(data: str | os.PathLike[str]) -> dict[str, set[str]]:
    """Subset -> language pairs in which it is there (`{"test": {"de-en"}}`), of a folder that exists."""
    found: dict[str, set[str]] = {}
    for match in _names(data):
        found.setdefault(match["subset"], set()).add(match["pair"])
    return found


def _names(data: str | os.PathLike[str]) -> Iterator[re.Match[str]]:
    """The file names of binarised text in a folder."""
    return (match for path in Path(data).iterdir() if (match := _NAME.fullmatch(path.name)))


def language_pairs(data: str | os.PathLike[str]) -> list[str]:
    """Language pairs of a folder that exists, in any subset: `["de-en"]`."""
    return sorted(set().union(*subsets(data).values()))


def split_pair(data: str | os.PathLike[str], pair: str) -> tuple[str, str]:
    """Source and target of `pt-br-en`: codes may have hyphens, and the files say which codes there are."""
    languages = {match["language"] for match in _names(data) if match["pair"] == pair}
    words = pair.split("-")
    choices = [("-".join(words[:n]), "-".join(words[n:])) for n in range(1, len(words))]
    return max(choices, key=lambda choice: len(languages.intersection(choice)))


def joined_subsets(
    data: str | os.PathLike[str], subset: str, source: str, target: str
) -> list[str]:
    """What fairseq joins to one training set, as stems of file names: `["train.de-en", "train1.de-en"]`.

    Numbers count up to the first that is missing, and each set can be named in either direction.
    """
    there = subsets(data)
    found: list[str] = []
    for number in count():
        name = f"{subset}{number or ''}"
        pairs = there.get(name, set())
        if f"{source}-{target}" in pairs:
            found.append(f"{name}.{source}-{target}")
        elif f"{target}-{source}" in pairs:
            found.append(f"{name}.{target}-{source}")
        else:
            break
    return found


def pairs_of(
    data: str | os.PathLike[str], subset: str, option: str | None = "--gen-subset"
) -> list[tuple[str, str]]:
    """Language pairs of one subset; `option` names it, for messages; None if none does.

    Raises:
        UserError: no such folder, or it has no such subset; says what there is.
    """
    if not Path(data).is_dir():
        raise UserError(f"data folder not found: {data}")
    found = subsets(data)
    if not found:
        raise UserError(
            f"{data} holds no binarised text (files like test.de-en.de.idx); "
            "make it with fairseq-preprocess"
        )
    if subset not in found:
        choices = f"{option} can be one of" if option else "it has"
        raise UserError(f"{data} has no subset {subset}; {choices} {listed(found)}")
    return [split_pair(data, pair) for pair in sorted(found[subset])]


def listed(names: Collection[str]) -> str:
    """Names in alphabetical order, for messages."""
    return ", ".join(sorted(names))


def dictionary_size(path: Path) -> int:
    """Types in a dictionary file, special symbols included.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return NUM_SPECIAL_SYMBOLS + sum(1 for _ in stream)
    except OSError as error:
        raise UserError(f"cannot read dictionary {path}: {error.strerror or error}") from error


def num_sentences(
    data: str | os.PathLike[str], subset: str, source: str, target: str
) -> int | None:
    """Sentences in a subset, read from its index; None if that is of an older format."""
    for pair in (f"{source}-{target}", f"{target}-{source}"):
        path = Path(data) / f"{subset}.{pair}.{source}.idx"
        if path.is_file():
            with path.open("rb") as stream:
                head = stream.read(_INDEX_HEAD.size)
            if len(head) == _INDEX_HEAD.size and head.startswith(_INDEX_MAGIC):
                return _INDEX_HEAD.unpack(head)[3]
    return None
