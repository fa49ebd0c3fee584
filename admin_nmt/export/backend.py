"""What a translator needs of an engine.

An engine gets batches of sentences in subwords and gives hypotheses in subwords. All search alike:
the same beam, scores divided by length ** lenpen, the same limit on the length of the output. No
translation is empty: CTranslate2 leaves the end of the sentence out of the first step before it
normalises probabilities, fairseq afterwards, so their sums of log-probabilities differ by the same number
for all translations of a sentence; after training it is small.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from admin_nmt.export.search import Alignment, Hypothesis, Search, Sentence


class Backend(Protocol):
    """An engine.

    Attributes:
        max_source: longest input in subwords.
    """

    max_source: int

    def translate(
        self, batches: Iterable[list[Sentence]], search: Search
    ) -> Iterator[list[list[Hypothesis]]]:
        """For every batch, in order: for every sentence its `search.nbest` hypotheses, best first."""

    def require_alignment(self, alignment: Alignment) -> None:
        """Find out before translating whether words can be aligned.

        Raises:
            UsageError: there is no such layer, or it cannot be chosen here.
            UserError: this model's attention cannot be had.
        """

    def seed(self, seed: int) -> None:
        """Start the random numbers of sampling anew."""
