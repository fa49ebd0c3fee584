"""SentencePiece: learn a model from counts of words, split lines, join pieces.

Its package is an extra (`pip install "admin-nmt[sentencepiece]"`); joining needs none.
"""

import logging
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write
from admin_nmt.installed import require_package
from admin_nmt.progress import clock

logger = logging.getLogger(__name__)

#: What begins every piece that begins a word (U+2581).
WORD_BEGINS = "▁"
MODEL_TYPES = ("unigram", "bpe")
#: Sums are made thread by thread, so another number would give another model.
_NUM_THREADS = 16
#: Words longer than this many bytes are left out of learning; text without spaces is one long word.
_MAX_WORD_BYTES = 65536


def require_sentencepiece() -> Any:
    """The module `sentencepiece`.

    Raises:
        UserError: it is not installed, or does not load.
    """
    return require_package("sentencepiece", "sentencepiece>=0.2")


def learn(
    counts: Counter[str], num_pieces: int, model_type: str, character_coverage: float, path: Path
) -> int:
    """Learn a model and write it to `path`.

    Words with their counts are SentencePiece's own "tsv" input: memory grows with the distinct words
    and not with the text. `bpe` gives the pieces that the text itself gives; `unigram` takes its
    first candidates from distinct words, so a few of its pieces differ.

    Args:
        counts: words of raw text.
        num_pieces: size of the vocabulary; fewer if the text does not yield that many.
        model_type: one of `MODEL_TYPES`.
        character_coverage: share of the characters of the text that become pieces.

    Returns:
        How many pieces the model has.

    Raises:
        UserError: the package is missing, or it cannot learn from these words; says why.
    """
    sentencepiece = require_sentencepiece()
    # A tab would end the word; text that was squeezed has none.
    words = (f"{word}\t{count}" for word, count in counts.items())
    with atomic_write(path, "wb") as stream, clock(logger, "learn SentencePiece"):
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=words,
                model_writer=stream,
                input_format="tsv",
                vocab_size=num_pieces,
                hard_vocab_limit=False,
                model_type=model_type,
                character_coverage=character_coverage,
                num_threads=_NUM_THREADS,
                max_sentence_length=_MAX_WORD_BYTES,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UserError(f"cannot learn SentencePiece pieces: {_reason(error)}") from error
    load.cache_clear()  # `path` may have held another model
    return int(load(path).get_piece_size())


def _reason(error: RuntimeError) -> str:
    """What a user can do about an error of SentencePiece's trainer."""
    text = " ".join(str(error).split())
    if match := re.search(r"smaller than required_chars\. (\d+) vs (\d+)", text):
        return (
            f"the text has characters for {match[2]} pieces, {match[1]} are asked for: more "
            "--bpe-tokens, or a lower --sentencepiece-character-coverage"
        )
    if "!sentences_.empty()" in text:
        return "the training text has no words"
    return text


@cache
def load(path: Path) -> Any:
    """The `SentencePieceProcessor` of a model file; read once in each process.

    Raises:
        UserError: the package is missing, or the file is not a SentencePiece model.
    """
    sentencepiece = require_sentencepiece()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read SentencePiece model {path}: {error.strerror or error}"
        ) from error
    processor = sentencepiece.SentencePieceProcessor()
    try:
        if not content:
            raise RuntimeError("it is empty")
        processor.LoadFromSerializedProto(content)
    except RuntimeError as error:
        raise UserError(f"{path} does not hold a model of SentencePiece") from error
    return processor


def model_type(path: Path) -> str:
    """`unigram` or `bpe`: the score of a merge is its rank, that of a unigram its log-probability."""
    processor = load(path)
    scores = (processor.get_score(index) for index in range(processor.get_piece_size()))
    return "bpe" if all(score == round(score) for score in scores) else "unigram"


def split(line: str, path: Path) -> str:
    """Pieces of a line of raw text with the model in `path`, joined by spaces."""
    return " ".join(load(path).encode(line, out_type=str))


def merge(line: str) -> str:
    """Undo `split`: `▁lo w ▁er` becomes `low er`."""
    return line.replace(" ", "").replace(WORD_BEGINS, " ").strip()
