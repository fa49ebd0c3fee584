"""How long a translation may become. Without torch, which an engine may not need."""

from collections.abc import Sequence, Sized

#: Subwords of output that are always allowed (fairseq's default for `--max-len-b`).
MIN_OUTPUT_LIMIT = 200


def output_limit(batch: Sequence[Sized], max_target: int) -> int:
    """Longest output of a batch: fairseq's default of 200, or twice the longest input.

    Args:
        batch: sentences in subwords, without their ends.
        max_target: most subwords of output that the model has positions for.
    """
    longest = max(len(sentence) for sentence in batch)
    return min(max(MIN_OUTPUT_LIMIT, 2 * longest), max_target)
