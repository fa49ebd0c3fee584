"""What `preparation.json` in a data folder tells about the text that was binarised there.

`admin-nmt prepare` writes that file; folders made by hand have none and are taken as they are.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from admin_nmt.data import subwords
from admin_nmt.data.subwords import SubwordNmt, Subwords
from admin_nmt.data.text_pipeline import FILE_NAME
from admin_nmt.errors import UserError
from admin_nmt.evaluation.text import detokenize
from admin_nmt.json_files import read_json

#: Where nothing is said. Words are joined without a file.
_BPE = SubwordNmt(Path(SubwordNmt.file_name))


@dataclass(frozen=True)
class Preparation:
    """What matters for scoring.

    Attributes:
        lowercase: the text was lower-cased, so scores against cased text must ignore case.
        raw: subset -> language -> file of untouched text, one sentence a line.
        subwords: how pieces become words again; without `preparation.json` as subword-nmt's do.
        tokenizer_langs: language -> the one by whose rules it was tokenised (`--tokenizer-lang`).
    """

    lowercase: bool = False
    raw: dict[str, dict[str, Path]] = field(default_factory=dict)
    subwords: Subwords = _BPE
    tokenizer_langs: dict[str, str] = field(default_factory=dict)

    def words(self, lines: Iterable[str]) -> list[str]:
        """Lines of pieces with the words joined: Moses tokens, or text where there are none."""
        return [self.subwords.merge(line) for line in lines]

    def text(self, lines: Iterable[str], language: str) -> list[str]:
        """Lines of pieces as text that people read."""
        words = self.words(lines)
        if not self.subwords.moses:
            return words
        return detokenize(words, self.tokenizer_langs.get(language, language))


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
        named = {"bpe", "sentencepiece"} & content.keys()
        pieces = subwords.read(content, Path(data)) if named else _BPE
        rules = dict(content.get("tokenizer_langs", {}))
        return Preparation(bool(content.get("lowercase", False)), raw, pieces, rules)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not have the form that admin-nmt prepare writes") from error
