"""Translating one subset of a data folder, in this process.

Sentences are searched by length, in the batches of `fairseq-generate`, and come back in the order of the
corpus. What fairseq cannot translate, empty and too long sentences, goes by the rule of `data.odd_lines`,
as in `admin-nmt translate`.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from admin_nmt.data.odd_lines import Warnings, pieces_of
from admin_nmt.data.parallel import chunks
from admin_nmt.errors import UserError, require_at_least_one, require_length_penalty
from admin_nmt.evaluation.batches import batches_of
from admin_nmt.search.beam import BeamSearch
from admin_nmt.search.limits import output_limit

logger = logging.getLogger(__name__)

#: fairseq-generate's `--seed` 1 in its first epoch: it draws the order of sentences of equal length.
_SEED = 2


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        beam: hypotheses kept at every step.
        lenpen: exponent of the length by which scores are divided; above 1 favours long output.
        max_tokens: source tokens in one batch; a longer sentence is a batch of its own.
        cpu: do not use a GPU.
        fp16: compute in 16 bits (GPU).
    """

    beam: int = 5
    lenpen: float = 1.0
    max_tokens: int = 12000
    cpu: bool = False
    fp16: bool = False

    def __post_init__(self) -> None:
        require_at_least_one("--beam", self.beam)
        require_length_penalty(self.lenpen)
        require_at_least_one("--max-tokens", self.max_tokens)


class Decoder:
    """Translations of one subset, as often as they are asked for.

    Empty sentences have empty translations. Sentences longer than the models' positions are
    translated in pieces, each of which is named in a warning when this object is made.

    Args:
        models: on their device, in evaluation mode; several translate together.
        task: fairseq's translation task over the data.
        subset: such as `test`; loaded if it is not there.
        options: how to search; where, the models say.
        max_sentences: translate only this many sentences, the first ones.
        max_tokens_option: name of the option that `options.max_tokens` came from, for messages.

    Attributes:
        num_sentences: N.
        batches: numbers of the sentences that fairseq translates as they are, from 0.
        pieces: (number of its sentence, subwords and end) of the others, in order.
        references: N sentences in pieces of words, unknown words as `<<unk>>`, which no translation
            contains; None if the subset has no target side.

    Raises:
        UserError: the subset has no sentences.
    """

    def __init__(
        self,
        models: Sequence[Any],
        task: Any,
        subset: str,
        options: SearchOptions,
        max_sentences: int | None = None,
        max_tokens_option: str = "--max-tokens",
    ) -> None:
        from fairseq import utils
        from fairseq.data import data_utils

        self.task = task
        self.options = options
        if subset not in task.datasets:
            task.load_dataset(subset)
        self.dataset = task.dataset(subset)
        self.num_sentences = min(len(self.dataset), max_sentences or len(self.dataset))
        if not self.num_sentences:
            raise UserError(f"subset {subset} has no sentences")
        self.search = BeamSearch(
            models,
            task,
            f"lower {max_tokens_option} or --beam",
            beam=options.beam,
            lenpen=options.lenpen,
        )
        with data_utils.numpy_seed(_SEED):
            order = self.dataset.ordered_indices().tolist()
        limits = utils.resolve_max_positions(
            task.max_positions(), *[model.max_positions() for model in models]
        )
        self.max_source = int(limits[0])
        # The end of sentence takes one position.
        self.max_target = int(limits[1]) - 1
        odd = set(self._odd_sentences())
        self.pieces = self._split(sorted(odd), subset)
        order = [number for number in order if number < self.num_sentences and number not in odd]
        self.batches = batches_of(self.dataset, order, options.max_tokens)
        self.references = None
        if self.dataset.tgt is not None:
            self.references = [
                self._text(self.dataset.tgt[number], escape_unk=True)
                for number in range(self.num_sentences)
            ]

    def _odd_sentences(self) -> list[int]:
        """Numbers of the empty and of the too long ones."""
        end = self.task.source_dictionary.eos()
        sizes = self.dataset.src_sizes[: self.num_sentences]
        return [
            int(number)
            for number in np.flatnonzero((sizes <= 1) | (sizes > self.max_source))
            if sizes[number] > 1 or self.dataset.src[int(number)].tolist() in ([], [end])
        ]

    def _split(self, numbers: Sequence[int], subset: str) -> list[tuple[int, torch.Tensor]]:
        """What is to be translated of odd sentences: nothing, or several pieces."""
        words, warnings = self.task.source_dictionary, Warnings(logger)
        pieces = []
        for number in numbers:
            tokens = [index for index in self.dataset.src[number].tolist() if index != words.eos()]
            name = f"line {number + 1} of subset {subset}"
            # The end of a piece takes one position.
            symbols = [words[index] for index in tokens]
            start = 0
            for piece in pieces_of(symbols, self.max_source - 1, name, warnings):
                part = tokens[start : start + len(piece)]
                pieces.append((number, torch.tensor([*part, words.eos()])))
                start += len(piece)
        warnings.close()
        return pieces

    def _text(self, tokens: Any, escape_unk: bool = False) -> str:
        """Pieces of words, joined by spaces."""
        dictionary = self.task.target_dictionary
        text: str = dictionary.string(
            tokens, escape_unk=escape_unk, extra_symbols_to_ignore=self.search.silent
        )
        return text

    def sources(self) -> list[str]:
        """The N source sentences, in pieces of words."""
        words = self.task.source_dictionary
        return [words.string(self.dataset.src[number]) for number in range(self.num_sentences)]

    def decode(self, done: Callable[[int], object] = lambda count: None) -> list[str]:
        """The best hypothesis of each sentence in corpus order, in pieces of words.

        Args:
            done: told after each batch how many sentences it had.

        Raises:
            UserError: the GPU has too little memory.
        """
        found: dict[int, list[str]] = {}
        for batch in self.batches:
            texts = self._translate([self.dataset[number] for number in batch])
            found |= {number: [text] for number, text in texts.items()}
            done(len(batch))
        done(self.num_sentences - len(found))
        for number, text in self._translate_pieces():
            found.setdefault(number, []).append(text)
        return [" ".join(filter(None, found.get(n, []))) for n in range(self.num_sentences)]

    def _translate_pieces(self) -> Iterator[tuple[int, str]]:
        """The number of its sentence and the translation of each piece, in order."""
        size = max(1, self.options.max_tokens // self.max_source)
        for pieces in chunks(self.pieces, size):
            # A piece may be as long as the model reads: fairseq's 200 subwords would cut it short.
            texts = self._translate(
                [{"id": i, "source": piece, "target": None} for i, (_, piece) in enumerate(pieces)],
                output_limit([piece[:-1] for _, piece in pieces], self.max_target),
            )
            yield from ((number, texts[i]) for i, (number, _) in enumerate(pieces))

    def _translate(
        self, sentences: Sequence[dict[str, Any]], longest: int | None = None
    ) -> dict[int, str]:
        """id -> best hypothesis, of a batch of items as the data set has them.

        Args:
            longest: most subwords of a hypothesis; by default fairseq's 200.
        """
        sample = self.dataset.collater(sentences)
        return {
            number: self._text(best.tokens)
            for number, (best, *_) in zip(
                sample["id"].tolist(), self.search(sample, longest), strict=True
            )
        }
