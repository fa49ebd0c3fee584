"""fairseq's own Transformers of any age: the released WMT models among them.

They stay `transformer`; parameters get today's names, and the configuration is completed.
"""

from pathlib import Path

from torch import Tensor

from admin_nmt.interop.reading import Foreign
from admin_nmt.interop.writing import Converted, Taken, complete_settings, converted


def convert(path: str | Path) -> Converted:
    """A checkpoint of fairseq's `transformer*` as fairseq 0.12 would write it.

    Raises:
        UserError: no such checkpoint, or one that is damaged or of another kind.
    """
    return converted(path, _take_over)


def _take_over(foreign: Foreign, model: dict[str, Tensor]) -> Taken:
    settings = complete_settings(foreign, model, "transformer")
    return settings, ["a plain Transformer: kept as fairseq's transformer"]
