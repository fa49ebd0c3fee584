"""The repositories whose checkpoints `admin-nmt convert` takes."""

from collections.abc import Callable
from pathlib import Path

from admin_nmt.interop import admin_torch, deepnmt, fairseq, r_drop, transformer_clinic
from admin_nmt.interop.writing import Converted

#: Value of `--from` -> converter.
ORIGINS: dict[str, Callable[[str | Path], Converted]] = {
    "transformer-clinic": transformer_clinic.convert,
    "deepnmt": deepnmt.convert,
    "admin-torch": admin_torch.convert,
    "r-drop": r_drop.convert,
    "fairseq": fairseq.convert,
}
