"""Checkpoint to CTranslate2, by CTranslate2's own converter."""

import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from admin_nmt.checkpoints.checkpoint import TRANSFORMERS, Checkpoint
from admin_nmt.errors import UsageError, UserError
from admin_nmt.export.ctranslate2_backend import import_ctranslate2
from admin_nmt.export.plain_transformer import as_plain
from admin_nmt.export.search import Alignment
from admin_nmt.export.text import Text
from admin_nmt.models.settings import model_settings


def plain_model(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], Namespace]:
    """Weights and settings of the plain Transformer (`as_plain`); `settings.even_heads` is what
    `even_heads` says of the checkpoint.

    Raises:
        UserError: another architecture, or a model that cannot be folded or that CTranslate2
            cannot run.
    """
    ours = checkpoint.require_family(TRANSFORMERS, "be folded or exported") == "admin_transformer"
    heads = even_heads(checkpoint.path, model_settings(checkpoint)) if ours else None
    model, settings = as_plain(checkpoint)
    settings.even_heads = heads
    _check_convertible(checkpoint.path, settings)
    return model, settings


def even_heads(path: Path, settings: Namespace) -> tuple[int, int] | None:
    """Heads of each layer of encoder and decoder of a pruned model, None if it has all of them.

    Raises:
        UserError: they differ within a stack, or a stack has none.
    """
    from admin_nmt.models.config import to_config
    from admin_nmt.models.heads import full_layout
    from admin_nmt.modules.head_names import format_layout

    cfg = to_config(settings)
    layout = cfg.layout
    if layout == full_layout(cfg):
        return None
    encoder, decoder = set(layout["E"]), {*layout["D"], *layout.get("A", ())}
    if len(encoder) > 1 or len(decoder) > 1 or 0 in encoder | decoder:
        raise UserError(
            f"CTranslate2 cannot run {path}: its heads per layer are {format_layout(layout)}, and "
            "CTranslate2 has one number of heads for all layers of a stack; prune with --uniform "
            "and equal --decoder-self and --cross, or export the whole model"
        )
    return encoder.pop(), decoder.pop()


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
        f"--decoder-output-dim {settings.decoder_output_dim}": (
            settings.decoder_output_dim != settings.decoder_embed_dim
        ),
        "--no-decoder-final-norm": (
            settings.decoder_normalize_before and settings.no_decoder_final_norm
        ),
        "--adaptive-softmax-cutoff": settings.adaptive_softmax_cutoff is not None,
        "--no-cross-attention": settings.no_cross_attention,
        "--no-token-positional-embeddings": settings.no_token_positional_embeddings,
    }
    for reason, applies in reasons.items():
        if applies:
            raise UserError(f"CTranslate2 cannot run {path}: {reason}")


def find_alignment(
    checkpoint: Checkpoint, settings: Namespace, wanted: Alignment
) -> tuple[Alignment, bool]:
    """The attention that gives alignments, and whether it was trained to see the whole translation.

    Args:
        checkpoint: that is exported.
        settings: from `plain_model`.
        wanted: what goes before that which the checkpoint was trained for.

    Raises:
        UsageError: the model does not have that layer, or has fewer heads.
    """
    trained = model_settings(checkpoint)
    alignment, full_context = wanted.or_trained(
        trained.alignment_layer, trained.alignment_heads, trained.full_context_alignment
    )
    layers, heads = settings.decoder_layers, settings.decoder_attention_heads
    if getattr(settings, "even_heads", None):
        heads = settings.even_heads[1]
    if alignment.layer is not None and alignment.layer >= layers:
        raise UsageError(
            f"--alignment-layer {alignment.layer}: the decoder has layers 0 to {layers - 1}"
        )
    if alignment.heads is not None and alignment.heads > heads:
        raise UsageError(f"--alignment-heads {alignment.heads}: the decoder's layers have {heads}")
    return alignment, full_context


def convert(
    model: dict[str, Tensor],
    settings: Namespace,
    data: Path,
    text: Text,
    output: Path,
    quantization: str,
    alignment: Alignment,
) -> None:
    """Write the CTranslate2 model folder `output`.

    Args:
        model: state dict of fairseq's `transformer`.
        settings: of it.
        data: folder with the dictionaries.
        text: the languages.
        output: a folder that does not exist.
        quantization: how weights are stored.
        alignment: the attention that CTranslate2 returns.

    Raises:
        UserError: the converter refuses the model.
    """
    import_ctranslate2()
    options = vars(settings) | {
        "task": "translation",
        "data": str(data),
        "left_pad_source": True,
        "left_pad_target": False,
        # There, -1 is the last layer and 0 means all heads.
        "alignment_layer": -1 if alignment.layer is None else alignment.layer,
        "alignment_heads": alignment.heads or 0,
    }
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        path = Path(folder) / "plain.pt"
        # The converter reads the old form of checkpoints, a Namespace; `host.checkpoints` has allowed
        # that class, so the safe reader stays on.
        torch.save({"args": Namespace(**options), "cfg": None, "model": model}, path)
        converter = _converter(settings)(
            str(path), str(data), source_lang=text.source_lang, target_lang=text.target_lang
        )
        try:
            converter.convert(str(output), quantization=quantization)
        except (ValueError, NotImplementedError) as error:
            line = " ".join(str(error).split())
            raise UserError(f"CTranslate2 cannot convert the model: {line}") from error


def _converter(settings: Namespace) -> Any:
    """CTranslate2's converter, which drops the zeros of removed heads from what it converted."""
    from ctranslate2.converters import FairseqConverter

    heads: tuple[int, int] | None = getattr(settings, "even_heads", None)
    if heads is None:
        return FairseqConverter
    encoder_heads, decoder_heads = heads

    class EvenHeadsConverter(FairseqConverter):
        """Folding has put heads of zeros behind the others."""

        def _load(self) -> Any:
            spec = super()._load()
            for stack, count in ((spec.encoder, encoder_heads), (spec.decoder, decoder_heads)):
                size = _width(stack) // int(stack.num_heads)
                stack.num_heads = np.int16(count)
                for layer in stack.layer:
                    _keep_first_heads(layer.self_attention, count * size, size)
                    if hasattr(layer, "attention"):
                        _keep_first_heads(layer.attention, count * size, size)
            return spec

    return EvenHeadsConverter


def _width(stack: Any) -> int:
    """D of a stack of CTranslate2's specification."""
    return int(stack.layer[0].self_attention.linear[-1].weight.shape[0])


def _keep_first_heads(attention: Any, inner_dim: int, head_dim: int) -> None:
    """Rows of the input projections and columns of the output projection, in place."""
    *inputs, output = attention.linear
    width = output.weight.shape[0]
    for linear in inputs:
        for name in ("weight", "bias"):
            rows = getattr(linear, name)
            parts = rows.reshape(-1, width, *rows.shape[1:])[:, :inner_dim]
            setattr(linear, name, np.ascontiguousarray(parts.reshape(-1, *rows.shape[1:])))
    output.weight = np.ascontiguousarray(output.weight[:, :inner_dim])
    # Its constructor takes the number, but the converter for fairseq does not give it.
    vars(attention)["head_dim"] = np.int32(head_dim)
