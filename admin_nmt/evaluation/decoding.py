"""fairseq's beam search over one subset of a data folder, in this process.

Sentences are searched by length, in the batches of `fairseq-generate`, and come back in the order of the
corpus.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from admin_nmt.errors import UsageError, UserError

#: fairseq-generate's `--seed` 1 in its first epoch: it draws the order of sentences of equal length.
_SEED = 2


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        beam: hypotheses kept at every step.
        lenpen: exponent of the length by which scores are divided; above 1 favours long output.
        max_tokens: source tokens in one batch.
        cpu: do not use a GPU.
        fp16: compute in 16 bits (GPU).
    """

    beam: int = 5
    lenpen: float = 1.0
    max_tokens: int = 12000
    cpu: bool = False
    fp16: bool = False

    def __post_init__(self) -> None:
        for option, value in (("--beam", self.beam), ("--max-tokens", self.max_tokens)):
            if value < 1:
                raise UsageError(f"{option} {value}: give a number of at least 1")


class Decoder:
    """Translations of one subset, as often as they are asked for.

    Args:
        models: on their device, in evaluation mode; several translate together.
        task: fairseq's translation task over the data.
        subset: such as `test`; loaded if it is not there.
        options: how to search; where, the models say.
        max_sentences: only the first so many sentences.
        max_tokens_option: name of the option that `options.max_tokens` came from, for messages.

    Attributes:
        num_sentences: N.
        references: N sentences in pieces of words, unknown words as `<<unk>>`, which no translation
            contains; None if the subset has no target side.

    Raises:
        UserError: the subset is empty, or a sentence is longer than the models' positions.
        UsageError: a sentence has more than `options.max_tokens`.
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
        from fairseq.dataclass.configs import GenerationConfig

        self.models = list(models)
        self.task = task
        self.options = options
        self.max_tokens_option = max_tokens_option
        if subset not in task.datasets:
            task.load_dataset(subset)
        self.dataset = task.dataset(subset)
        self.num_sentences = min(len(self.dataset), max_sentences or len(self.dataset))
        if not self.num_sentences:
            raise UserError(f"subset {subset} has no sentences")
        self.generator = task.build_generator(
            self.models, GenerationConfig(beam=options.beam, lenpen=options.lenpen)
        )
        with data_utils.numpy_seed(_SEED):
            order = self.dataset.ordered_indices().tolist()
        order = [number for number in order if number < self.num_sentences]
        limits = utils.resolve_max_positions(
            task.max_positions(), *[model.max_positions() for model in self.models]
        )
        self._require_lengths(order, limits, subset)
        self.batches = self.dataset.batch_by_size(order, max_tokens=options.max_tokens)
        self.references = None
        if self.dataset.tgt is not None:
            self.references = [
                self._text(self.dataset.tgt[number], escape_unk=True)
                for number in range(self.num_sentences)
            ]

    def _require_lengths(self, order: Sequence[int], limits: Sequence[int], subset: str) -> None:
        """Find out before translating what fairseq would stop at."""
        for number in order:
            sizes = self.dataset.size(number)
            sizes = sizes if isinstance(sizes, tuple) else (sizes,)
            if any(size > limit for size, limit in zip(sizes, limits, strict=False)):
                raise UserError(
                    f"sentence {number + 1} of subset {subset} is longer than the model's "
                    f"{tuple(limits)} positions"
                )
            if max(sizes) > self.options.max_tokens:
                raise UsageError(
                    f"{self.max_tokens_option} {self.options.max_tokens}: sentence {number + 1} of "
                    f"subset {subset} has {max(sizes)} tokens"
                )

    def _text(self, tokens: Any, escape_unk: bool = False) -> str:
        """Pieces of words, joined by spaces."""
        dictionary = self.task.target_dictionary
        text: str = dictionary.string(
            tokens,
            escape_unk=escape_unk,
            extra_symbols_to_ignore=set(self.generator.symbols_to_strip_from_output),
        )
        return text

    def sources(self) -> list[str]:
        """The N source sentences, in pieces of words."""
        words = self.task.source_dictionary
        return [words.string(self.dataset.src[number]) for number in range(self.num_sentences)]

    def _samples(self) -> Iterator[Any]:
        """The batches, on the models' device."""
        from fairseq import utils

        cuda = next(self.models[0].parameters()).is_cuda
        for batch in self.batches:
            sample = self.dataset.collater([self.dataset[number] for number in batch])
            yield utils.move_to_cuda(sample) if cuda else sample

    def decode(self, done: Callable[[int], object] = lambda count: None) -> list[str]:
        """The best hypothesis of each sentence in corpus order, in pieces of words.

        Args:
            done: told after each batch how many sentences it had.

        Raises:
            UserError: the GPU has too little memory.
        """
        found: dict[int, str] = {}
        try:
            for sample in self._samples():
                hypotheses = self.task.inference_step(self.generator, self.models, sample)
                numbers = sample["id"].tolist()
                for number, best in zip(numbers, hypotheses, strict=True):
                    found[number] = self._text(best[0]["tokens"].int().cpu())
                done(len(numbers))
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f"the GPU ran out of memory: lower {self.max_tokens_option} or --beam"
            ) from error
        return [found[number] for number in range(self.num_sentences)]
