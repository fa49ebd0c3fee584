"""Label smoothing as two coefficients, so that every implementation of the loss shares them.

For one token with log-probabilities lp over V types and true type y the loss is

    loss = -(target * lp[y] + each * sum_j lp[j])

Two conventions are in use for the smoothed probability mass epsilon (Szegedy et al. 2016,
arXiv 1512.00567, section 7):

- `"others"`: epsilon / (V - 1) for every type but the true one, which keeps 1 - epsilon (fairseq);
- `"all"`: epsilon / V for every type, the true one included (the paper, and R-Drop's authors).
"""

from dataclasses import dataclass

from torch import Tensor

CONVENTIONS = ("others", "all")


@dataclass(frozen=True)
class LabelSmoothing:
    """The coefficients of the loss; `target + V * each` is 1.

    Attributes:
        target: weight of the true type, beyond what `each` gives it.
        each: weight of every type.
    """

    target: float
    each: float

    @classmethod
    def of(cls, epsilon: float, num_types: int, over: str = "others") -> "LabelSmoothing":
        """Coefficients for mass `epsilon` over a vocabulary of `num_types`.

        Examples:
            >>> LabelSmoothing.of(0.1, 5, over="all")
            LabelSmoothing(target=0.9, each=0.02)
            >>> others = LabelSmoothing.of(0.1, 5)
            >>> round(others.target + 5 * others.each, 12)
            1.0

        Raises:
            ValueError: unknown `over`.
        """
        if over not in CONVENTIONS:
            raise ValueError(f"label smoothing over {over!r}; choose from {', '.join(CONVENTIONS)}")
        if over == "all":
            return cls(1.0 - epsilon, epsilon / num_types)
        each = epsilon / (num_types - 1)
        return cls(1.0 - epsilon - each, each)

    def loss(self, lprobs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Smoothed and plain negative log-likelihood per token.

        Args:
            lprobs: (..., V), log-probabilities.
            target: (...), indices of the true types.

        Returns:
            two tensors (...).
        """
        nll = -lprobs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        if self.each == 0:
            return self.target * nll, nll
        return self.target * nll - self.each * lprobs.sum(dim=-1), nll
