"""What `preparation.json` in a data folder tells about the text that was binarised there.

`admin-nmt prepare` writes that file; folders made by hand have none and are taken as they are.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from admin_nmt.documents import read_json
from admin_nmt.errors import UserError

FILE_NAME = "preparation.json"


@dataclass(frozen=True)
class Preparation:
    """What matters for scoring.

    Attributes:
        lowercase: the text was lower-cased, so scores against cased text must ignore case.
        raw: subset -> language -> file of untouched text, one sentence a line.
    """

    lowercase: bool = False
    raw: dict[str, dict[str, Path]] = field(default_factory=dict)


def read_preparation(data: str | os.PathLike[str]) -> Preparation:
    """Read `preparation.json` of a data folder; without one nothing is known.

    Paths under `raw` are relative to the data folder.

    Raises:
        UserError: the file does not hold a JSON object, or an entry has another form.
    """
    path = Path(data) / FILE_NAME
    if not path.exists():
        return Preparation()
    content = read_json(path)
    try:
        raw = {
            subset: {language: Path(data) / name for language, name in files.items()}
            for subset, files in content.get("raw", {}).items()
        }
        return Preparation(bool(content.get("lowercase", False)), raw)
    except (AttributeError, TypeError) as error:
        raise UserError(f"{path} does not have the form that admin-nmt prepare writes") from error
