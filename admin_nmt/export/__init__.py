"""From a trained checkpoint to something one can ship.

`fold` makes a plain fairseq Transformer, `export_bundle` a self-contained CTranslate2
folder, `load_translator` translates raw text with either:

    from admin_nmt.export import load_translator

    translator = load_translator("exported/")          # or ("checkpoint.pt", data="data-bin")
    translator.translate(["Ein Hund läuft."])          # ["A dog is running."]
"""

from admin_nmt.lazy import lazy_attributes

_HOMES = {
    "export_bundle": "admin_nmt.export.bundle",
    "fold": "admin_nmt.export.plain_transformer",
    "fold_checkpoint": "admin_nmt.export.plain_transformer",
    "load_translator": "admin_nmt.export.loading",
    "TextOptions": "admin_nmt.export.text",
    "Translator": "admin_nmt.export.translator",
}

__all__ = [
    "TextOptions",
    "Translator",
    "export_bundle",
    "fold",
    "fold_checkpoint",
    "load_translator",
]

# Translating with CTranslate2 must not import torch.
__getattr__ = lazy_attributes(__name__, _HOMES)
