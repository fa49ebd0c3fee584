"""github.com/dropreg/R-Drop (arXiv 2106.14448): fairseq's `transformer`, trained with a task and a
criterion of their own, which the model does not need."""

from pathlib import Path

from admin_nmt.interop import fairseq
from admin_nmt.interop.writing import Converted


def convert(path: str | Path) -> Converted:
    """A checkpoint of R-Drop's `rdrop_translation` as one of fairseq's `translation`.

    Raises:
        UserError: no such checkpoint, or one that is damaged or of another kind.
    """
    return fairseq.convert(path)
