"""Token tensors in, hypotheses out: fairseq's generator in this process."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from admin_nmt.errors import UserError

#: What fairseq's beam search ("no sentence ends"), and PyTorch's sampling, say of NaN.
_NOT_FINITE = re.compile(r"^(\d+) < \1$|multinomial distribution|probability tensor contains")


class Found(NamedTuple):
    """One hypothesis.

    Attributes:
        tokens: (T,) numbers of the target's dictionary, on the CPU; the last is the end of sentence.
        score: log-probability over length ** lenpen.
    """

    tokens: Tensor
    score: float


class BeamSearch:
    """fairseq's beam search, or sampling, by one or several models that translate together.

    Args:
        models: on their device, in evaluation mode.
        task: fairseq's translation task, whose dictionaries the models have.
        remedy: what a user can do about a full GPU, for the message.
        options: fields of fairseq's `GenerationConfig`, such as `beam`, `lenpen` and `sampling`.
    """

    def __init__(self, models: Sequence[Any], task: Any, remedy: str, **options: Any) -> None:
        from fairseq.dataclass.configs import GenerationConfig

        self.models = list(models)
        self.task = task
        self.remedy = remedy
        self.device = next(self.models[0].parameters()).device
        self.generator = task.build_generator(self.models, GenerationConfig(**options))
        self._limits = self.generator.max_len_a, self.generator.max_len_b

    @property
    def silent(self) -> set[int]:
        """Numbers of tokens that are not part of the text, such as the end of sentence."""
        return set(self.generator.symbols_to_strip_from_output)

    def __call__(self, sample: dict[str, Any], longest: int | None = None) -> list[list[Found]]:
        """The hypotheses of each sentence of a batch, best first.

        Args:
            sample: a batch as fairseq's data sets make them; only `net_input` is needed, with
                `src_tokens` (B, S) and `src_lengths` (B,), on any device.
            longest: limit on the tokens of a hypothesis, without its end; by default fairseq's 200.
                The models' positions limit it too.

        Raises:
            UserError: the GPU has too little memory, or probabilities are not finite.
        """
        from fairseq import utils

        # The generator keeps them, so every call sets its own.
        limits = self._limits if longest is None else (0, longest)
        self.generator.max_len_a, self.generator.max_len_b = limits
        _tell_beam_size(self.models, self.generator.beam_size)
        try:
            sample = utils.apply_to_sample(lambda tensor: tensor.to(self.device), sample)
            found = self.task.inference_step(self.generator, self.models, sample)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(f"the GPU ran out of memory: {self.remedy}") from error
        except (AssertionError, RuntimeError) as error:
            if _NOT_FINITE.search(str(error)):
                raise UserError(
                    "the model's probabilities are NaN or infinite: its training has diverged, or its "
                    "values overflow in 16 bits (leave --fp16 out)"
                ) from error
            raise
        finally:
            _tell_beam_size(self.models, 1)
        return [
            [Found(entry["tokens"].cpu(), float(entry["score"])) for entry in entries]
            for entries in found
        ]


def _tell_beam_size(models: Sequence[Any], size: int) -> None:
    """In a search BART's encoder-decoder attention takes every `size`-th row of its keys, and its encoder
    does not reorder what it returns. A generator says so when it is made, unless `size` is 1, and for
    good: other passes, and searches of another size, would be wrong."""
    for model in models:
        if hasattr(model, "set_beam_size"):
            model.set_beam_size(size)
            if size == 1:
                vars(model.encoder).pop("reorder_encoder_out", None)
