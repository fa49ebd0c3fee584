"""fairseq's own Transformers of any age: the released WMT models among them.

They stay `transformer`; parameters get today's names, and the configuration is completed.
"""

from pathlib import Path

from admin_nmt.errors import UserError
from admin_nmt.interop.names import float32, modern_names
from admin_nmt.interop.reading import open_foreign
from admin_nmt.interop.writing import Converted, checkpoint, complete_settings, dropped_optimizer


def convert(path: str | Path) -> Converted:
    """A checkpoint of fairseq's `transformer*` as fairseq 0.12 would write it.

    Raises:
        UserError: no such checkpoint, or one that is damaged or of another kind.
    """
    foreign = open_foreign(path)
    shared = foreign.flag("share_all_embeddings") or foreign.flag(
        "share_decoder_input_output_embed"
    )
    try:
        model, other_type = float32(modern_names(foreign.checkpoint.weights, shared))
        settings = complete_settings(foreign, model, "transformer")
        plain = checkpoint(foreign, settings, model)
    except UserError as error:
        raise UserError(f"checkpoint {path} cannot be converted: {error}") from error
    lines = ["a plain Transformer: kept as fairseq's transformer"]
    if other_type:
        lines.append(f"the checkpoint was {other_type}; saved in float32")
    return Converted(plain, lines + dropped_optimizer(foreign))
