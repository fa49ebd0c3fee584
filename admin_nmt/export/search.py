"""What a search is asked for and what it finds, whatever the engine."""

from dataclasses import dataclass

from admin_nmt.errors import UsageError, require_at_least_one, require_length_penalty, require_seed

#: In subwords.
Sentence = list[str]


@dataclass(frozen=True)
class Sampling:
    """How to draw the next subword.

    Attributes:
        topk: from this many most probable ones; 0, or more than there are, from all.
        topp: from the most probable ones that together have this probability; 1 from all.
        temperature: by which logits are divided; below 1 favours probable ones.
        seed: of the random numbers.
    """

    topk: int = 0
    topp: float = 1.0
    temperature: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.topk < 0:
            raise UsageError(f"--sampling-topk {self.topk}: give a number of at least 0")
        require_seed(self.seed)
        if not 0 < self.topp <= 1:
            raise UsageError(f"--sampling-topp {self.topp}: give a number above 0, at most 1")
        if not self.temperature > 0:
            raise UsageError(f"--temperature {self.temperature}: give a number above 0")
        if self.topk and self.topp < 1:
            raise UsageError("--sampling-topk and --sampling-topp exclude each other")


@dataclass(frozen=True)
class Alignment:
    """Which encoder-decoder attention tells what a word was translated from.

    Attributes:
        layer: of the decoder, from 0; None for the one that was trained for it, else the last.
        heads: the average of this many, the first ones; None for those that were trained for it, else all.
    """

    layer: int | None = None
    heads: int | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and self.layer < 0:
            raise UsageError(f"--alignment-layer {self.layer}: layers count from 0")
        require_at_least_one("--alignment-heads", self.heads)

    def or_trained(
        self, layer: int | None, heads: int | None, full_context: bool
    ) -> tuple["Alignment", bool]:
        """This attention, with what was trained to align in place of what is not said.

        Args:
            layer: that was trained, None if none was.
            heads: that were trained.
            full_context: they were trained to see the whole translation.

        Returns:
            the attention, and whether it is to see the whole translation.
        """
        if layer is None or self.layer not in (None, layer):
            return self, False
        return Alignment(layer, heads if self.heads is None else self.heads), full_context


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        beam: hypotheses kept at every step.
        nbest: hypotheses returned for a sentence, at most `beam`.
        lenpen: exponent of the length by which scores are divided; above 1 favours long output.
        sampling: draw `nbest` hypotheses at random, without a beam.
        alignment: also tell what every subword was translated from.
    """

    beam: int = 5
    nbest: int = 1
    lenpen: float = 1.0
    sampling: Sampling | None = None
    alignment: Alignment | None = None

    def __post_init__(self) -> None:
        require_at_least_one("--beam", self.beam)
        require_at_least_one("--nbest", self.nbest)
        require_length_penalty(self.lenpen)
        if self.sampling is None and self.nbest > self.beam:
            raise UsageError(f"--nbest {self.nbest} needs --beam of at least {self.nbest}")


@dataclass(frozen=True)
class Hypothesis:
    """One translation of a sentence in subwords.

    Attributes:
        tokens: T subwords.
        score: log-probability over length.
        attended: for each of them the index of the source subword that it attends to most when it is
            predicted; None if that was not asked for.
    """

    tokens: Sentence
    score: float
    attended: list[int] | None = None
