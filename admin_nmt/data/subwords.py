"""The two kinds of subwords: BPE of subword-nmt over Moses tokens, SentencePiece over raw text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from admin_nmt.data import bpe, sentence_pieces


@dataclass(frozen=True)
class SubwordNmt:
    """Byte pair encoding of subword-nmt.

    Small and picklable; the file is read when it is needed, once in each process.

    Attributes:
        path: file of codes.
        moses: whether its text is Moses tokens, which want detokenisation.
        file_name: of `path` in folders that this package makes.
    """

    path: Path
    moses: ClassVar[bool] = True
    file_name: ClassVar[str] = "codes"

    def require(self) -> None:
        """Find out before work whether the file can be used.

        Raises:
            UserError: the file is missing or of another kind.
        """
        bpe.load(self.path)

    def split(self, line: str) -> str:
        """Pieces of a line of tokens, joined by spaces."""
        return bpe.split(line, self.path)

    def merge(self, line: str) -> str:
        """Undo `split`."""
        return bpe.merge(line)

    def begins_word(self, piece: str) -> bool:
        """Whether a word begins with this piece, whatever stands before it."""
        return False

    def ends_word(self, piece: str) -> bool:
        """Whether a word ends with this piece, whatever follows."""
        return not piece.endswith(bpe.SEPARATOR)

    def settings(self, file_name: str) -> dict[str, Any]:
        """The part of `preparation.json` from which `read` makes this."""
        return {"bpe": {"codes": file_name, "separator": bpe.SEPARATOR}}


@dataclass(frozen=True)
class SentencePiece:
    """A model of SentencePiece.

    Attributes:
        path: the model; joining pieces does not need it.
        moses: whether its text is Moses tokens, which want detokenisation.
        file_name: of `path` in folders that this package makes.
    """

    path: Path
    moses: ClassVar[bool] = False
    file_name: ClassVar[str] = "sentencepiece.model"

    def require(self) -> None:
        """Find out before work whether the model can be used.

        Raises:
            UserError: the package or the file is missing, or the file is of another kind.
        """
        sentence_pieces.load(self.path)

    def split(self, line: str) -> str:
        """Pieces of a line of raw text, joined by spaces."""
        return sentence_pieces.split(line, self.path)

    def merge(self, line: str) -> str:
        """Undo `split`, up to the normalisation that the model does (NFKC)."""
        return sentence_pieces.merge(line)

    def begins_word(self, piece: str) -> bool:
        """Whether a word begins with this piece, whatever stands before it."""
        return piece.startswith(sentence_pieces.WORD_BEGINS)

    def ends_word(self, piece: str) -> bool:
        """Whether a word ends with this piece, whatever follows."""
        return False

    def settings(self, file_name: str) -> dict[str, Any]:
        """The part of `preparation.json` from which `read` makes this."""
        return {"sentencepiece": {"model": file_name}}


Subwords = SubwordNmt | SentencePiece

#: The kinds by the names that users give them, the default first.
SUBWORD_KINDS: dict[str, type[SubwordNmt] | type[SentencePiece]] = {
    "subword-nmt": SubwordNmt,
    "sentencepiece": SentencePiece,
}


def read(preparation: Mapping[str, Any], folder: Path) -> Subwords:
    """The subwords that a `preparation.json` in `folder` names.

    Raises:
        KeyError, TypeError: it has another form.
    """
    if "sentencepiece" in preparation:
        return SentencePiece(folder / preparation["sentencepiece"]["model"])
    return SubwordNmt(folder / preparation["bpe"]["codes"])
