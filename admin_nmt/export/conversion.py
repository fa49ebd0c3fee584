"""Checkpoint to CTranslate2, by CTranslate2's own converter."""

import os
import tempfile
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

from admin_nmt.errors import UserError
from admin_nmt.evaluation.checkpoints import open_checkpoint
from admin_nmt.export.backends import import_ctranslate2
from admin_nmt.export.checkpoint import (
    fold_checkpoint,
    model_kind,
    model_settings,
    plain_settings,
    to_float32,
)
from admin_nmt.export.text import Text


def plain_model(checkpoint: str | os.PathLike[str]) -> tuple[dict[str, Tensor], Namespace]:
    """Weights and settings as of fairseq's `transformer`, folded if the checkpoint is ours.

    Raises:
        UserError: another architecture, or a model that cannot be folded or that CTranslate2
            cannot run.
    """
    path = Path(checkpoint)
    state = open_checkpoint(path)
    if model_kind(path, state) == "admin_transformer":
        folded, _ = fold_checkpoint(path)
        model, settings = folded["model"], Namespace(**folded["cfg"]["model"])
    else:
        model, _ = to_float32(state["model"])
        settings = Namespace(**plain_settings(model_settings(state)))
    _check_convertible(path, settings)
    return model, settings


def _check_convertible(path: Path, settings: Namespace) -> None:
    """Refuse what CTranslate2's converter would stumble over in a traceback.

    Raises:
        UserError: with the option.
    """
    heads = settings.encoder_attention_heads, settings.decoder_attention_heads
    pre_norm = settings.encoder_normalize_before, settings.decoder_normalize_before
    reasons = {
        f"--encoder-attention-heads {heads[0]} and --decoder-attention-heads {heads[1]} differ": (
            heads[0] != heads[1]
        ),
        "only one of --encoder-normalize-before and --decoder-normalize-before is set": (
            pre_norm[0] != pre_norm[1]
        ),
        "--adaptive-softmax-cutoff": settings.adaptive_softmax_cutoff is not None,
        "--no-cross-attention": settings.no_cross_attention,
        "--no-token-positional-embeddings": settings.no_token_positional_embeddings,
    }
    for reason, applies in reasons.items():
        if applies:
            raise UserError(f"CTranslate2 cannot run {path}: {reason}")


def convert(
    model: dict[str, Tensor],
    settings: Namespace,
    data: Path,
    text: Text,
    output: Path,
    quantization: str,
) -> None:
    """Write the CTranslate2 model folder `output`.

    Args:
        model: state dict of fairseq's `transformer`.
        settings: of it.
        data: folder with the dictionaries.
        text: the languages.
        output: a folder that does not exist.
        quantization: how weights are stored.

    Raises:
        UserError: the converter refuses the model.
    """
    import_ctranslate2()
    from ctranslate2.converters import FairseqConverter

    options = vars(settings) | {
        "task": "translation",
        "data": str(data),
        "left_pad_source": True,
        "left_pad_target": False,
    }
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        path = Path(folder) / "plain.pt"
        # The converter reads the old form of checkpoints, a Namespace; `compat.apply` has allowed
        # that class, so the safe reader stays on.
        torch.save({"args": Namespace(**options), "cfg": None, "model": model}, path)
        converter = FairseqConverter(
            str(path), str(data), source_lang=text.source_lang, target_lang=text.target_lang
        )
        try:
            converter.convert(str(output), quantization=quantization)
        except (ValueError, NotImplementedError) as error:
            line = " ".join(str(error).split())
            raise UserError(f"CTranslate2 cannot convert the model: {line}") from error
