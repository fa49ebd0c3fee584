"""Raw text to what a model reads, and back, as the model's training text was prepared.

Built from `preparation.json` of a prepared folder; see `pipeline.prepare`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from admin_nmt.data import subwords
from admin_nmt.data.subwords import Subwords
from admin_nmt.data.tokenization import LineTokenizer
from admin_nmt.data.word_alignment import Words, tokens_of, words_of_tokens
from admin_nmt.errors import UserError
from admin_nmt.json_files import read_json_object

#: What `admin-nmt prepare` writes into a data folder about its text.
FILE_NAME = "preparation.json"


@dataclass(frozen=True)
class TextPipeline:
    """Source text in, target text out.

    Small and picklable; the work is done by sacremoses and subword-nmt, or by SentencePiece.

    Attributes:
        source: tokenises the source language as the training text was: with normalisation if that
            was normalised, even where the published test set is not.
        target: the same for the target language.
        subwords: splits and joins words.
    """

    source: LineTokenizer
    target: LineTokenizer
    subwords: Subwords

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "TextPipeline":
        """Read the settings of a prepared folder.

        Args:
            folder: the `data-bin` folder, or the `--output` folder around it.

        Raises:
            UserError: there is no `preparation.json`, or it or the file that it names for subwords
                is missing or has another form.
        """
        path = Path(folder) / FILE_NAME
        if not path.exists():
            path = Path(folder) / "data-bin" / FILE_NAME
        if not path.exists():
            raise UserError(f"{folder} has no {FILE_NAME}: give a folder made by admin-nmt prepare")
        content = read_json_object(path)
        try:
            pieces = subwords.read(content, path.parent)
            # Folders without substitutions say nothing, or have an empty list.
            of_training = (content.get("substitute") or {}).get("train", ())
            source, target = (
                LineTokenizer(
                    content["tokenizer_langs"][content[side]],
                    normalize=content["normalize"],
                    aggressive_hyphens=content["aggressive_hyphens"],
                    lowercase=content["lowercase"],
                    moses=pieces.moses,
                    substitute=tuple((old, new) for old, new in of_training),
                )
                for side in ("source_lang", "target_lang")
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"cannot read {path}: {type(error).__name__}: {error}") from error
        pieces.require()
        return cls(source, target, pieces)

    def encode(self, line: str) -> str:
        """Subwords of a line of source text, joined by spaces."""
        return self.subwords.split(self.source(line))

    def decode(self, line: str) -> str:
        """Text from subwords of the target language; lower-cased text stays so."""
        return self.target.undo(self.subwords.merge(line))

    def source_words(self, pieces: Sequence[str], line: str) -> list[Words]:
        """For every piece of `encode(line)` the words of `line` that it is part of."""
        return self._words(self.source, pieces, line)

    def target_words(self, pieces: Sequence[str], line: str) -> list[Words]:
        """For every piece the words of `line`, which is `decode` of them, that it is part of."""
        return self._words(self.target, pieces, line)

    def _words(self, tokenizer: LineTokenizer, pieces: Sequence[str], line: str) -> list[Words]:
        tokens, places = tokens_of(pieces, self.subwords)
        words = words_of_tokens([tokenizer.plain(token) for token in tokens], line)
        return [words[place] for place in places]
