"""github.com/microsoft/deepnmt (arXiv 2008.07772): a plug-in for fairseq 0.9 with the layers of
Transformer-Clinic, whose option is called `--admin-init-type`."""

from pathlib import Path

from admin_nmt.interop import transformer_clinic
from admin_nmt.interop.writing import Converted


def convert(path: str | Path) -> Converted:
    """A checkpoint of deepnmt (`adv_transformer*`) as one of `admin_transformer`.

    Raises:
        UserError: no such checkpoint, or one that is damaged or cannot be represented.
    """
    return transformer_clinic.convert(path, "admin_init_type")
