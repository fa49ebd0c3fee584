"""`admin-nmt export`: argument parsing of `export.bundle`."""

import argparse
import sys

from admin_nmt.cli._translation import (
    add_alignment_arguments,
    add_text_arguments,
    alignment_options,
    text_options,
)
from admin_nmt.errors import UsageError
from admin_nmt.option_names import flag

HELP = (
    "make a self-contained folder that translates raw text (CTranslate2), or a Hugging Face model"
)

FORMATS = ("ctranslate2", "huggingface")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A checkpoint and its data in, a folder out."""
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint of a Transformer")
    parser.add_argument("data", metavar="DATA", help="the data folder it was trained on")
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--format",
        default="ctranslate2",
        metavar="NAME",
        help="ctranslate2 (default: fast, translates raw text), or huggingface: an FSMT model for "
        "the library transformers, in float32",
    )
    parser.add_argument(
        "--quantization",
        default="float32",
        metavar="TYPE",
        help="how weights are stored: float32 (default), int8 (fastest on CPUs), int8_float16, "
        "int8_bfloat16, int8_float32, int16, float16, bfloat16",
    )
    parser.add_argument("--force", action="store_true", help="replace an exported DIR")
    add_alignment_arguments(parser)
    add_text_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Export and say how well the result agrees with the checkpoint."""
    from admin_nmt.export.bundle import QUANTIZATIONS

    if args.quantization not in QUANTIZATIONS:
        raise UsageError(
            f"--quantization {args.quantization}: choose from {', '.join(QUANTIZATIONS)}"
        )
    if args.format not in FORMATS:
        raise UsageError(f"--format {args.format}: choose from {', '.join(FORMATS)}")
    if args.format == "huggingface":
        return _huggingface(args)
    import admin_nmt.registration  # noqa: F401
    from admin_nmt.export.bundle import export_bundle

    content = export_bundle(
        args.checkpoint,
        args.data,
        args.output,
        quantization=args.quantization,
        options=text_options(args),
        force=args.force,
        alignment=alignment_options(args),
    )
    checked = content["verification"]
    sys.stdout.write(
        f"{args.output}: {content['source_lang']}-{content['target_lang']}, "
        f"{content['quantization']}; of {checked['num_sentences']} sentences "
        f"{checked['num_identical']} translated exactly as by fairseq, scores within "
        f"{checked['largest_score_difference']:.2g}\n"
    )
    return 0


def _huggingface(args: argparse.Namespace) -> int:
    """Export for `transformers` and say how well the result agrees with the checkpoint."""
    if args.quantization != "float32":
        raise UsageError(f"--quantization {args.quantization}: --format huggingface is float32")
    for option in ("alignment_layer", "alignment_heads"):
        if getattr(args, option) is not None:
            raise UsageError(f"{flag(option)} does not go with --format huggingface")
    import admin_nmt.registration  # noqa: F401
    from admin_nmt.export.huggingface import export_huggingface

    content = export_huggingface(
        args.checkpoint, args.data, args.output, options=text_options(args), force=args.force
    )
    checked = content["verification"]
    sys.stdout.write(
        f"{args.output}: {content['source_lang']}-{content['target_lang']}, an FSMT model of "
        f"transformers; logits on 8 random sentences: largest difference "
        f"{checked['largest_difference']:.2g}, largest value {checked['largest_logit']:.3g}\n"
    )
    if not content["raw_text"]:
        sys.stdout.write(
            "its tokenizer prepares raw text otherwise than this model's training text was: give it "
            "subwords, as README.md in the folder shows\n"
        )
    return 0
