"""What the subcommands about attention heads share: options for the model, data and search."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from admin_nmt.cli._languages import add_language_arguments
from admin_nmt.errors import require_at_least_one
from admin_nmt.outputs import require_folder

if TYPE_CHECKING:
    from admin_nmt.evaluation.decoding import SearchOptions
    from admin_nmt.pruning.loading import LoadedModel
    from admin_nmt.pruning.measuring import MeasuringOptions


def add_model_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """The data folder, the checkpoint (or several of a run), the direction, the device."""
    parser.add_argument("data", metavar="DATA", help="folder of binarised text (data-bin)")
    parser.add_argument(
        "--path",
        required=True,
        metavar="CKPT",
        nargs="+" if several else None,
        help="checkpoint of admin_transformer or of fairseq's transformer"
        + ("; several of one run show heads during training" if several else ""),
    )
    add_language_arguments(parser)
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """On what, how much of it, and by which definition importance is measured."""
    parser.add_argument(
        "--subset", default="train", metavar="NAME", help="data to measure on (default: train)"
    )
    parser.add_argument(
        "--max-batches",
        type=int,
        metavar="N",
        help="measure on N batches drawn at random (default: all)",
    )
    parser.add_argument(
        "--max-tokens", type=int, default=4096, help="tokens in a batch (default: 4096)"
    )
    parser.add_argument(
        "--granularity",
        choices=("token", "sentence"),
        default="token",
        help="absolute value per token, as the authors' code, or per sentence (default: token)",
    )
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: %(default)s)")


def add_normalize_argument(parser: argparse._ArgumentGroup) -> None:
    """How scores of different layers and kinds are compared."""
    parser.add_argument(
        "--normalize",
        choices=("layer", "kind", "none"),
        default="layer",
        help="before heads are ranked together, scores get norm 1 in every layer, as in the paper, "
        "or over each kind, or stay as measured (default: layer)",
    )


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """What is translated, how, and against which reference it is scored."""
    parser.add_argument(
        "--gen-subset", default="test", metavar="NAME", help="what to translate (default: test)"
    )
    parser.add_argument(
        "--max-sentences", type=int, metavar="N", help="only the first N sentences of it"
    )
    parser.add_argument(
        "--reference",
        metavar="RAW",
        help="untouched reference, a sentence a line (default: the one in DATA/preparation.json, "
        "else the binarised one, detokenised)",
    )
    parser.add_argument("--beam", type=int, default=5, help="beam size (default: %(default)s)")
    parser.add_argument(
        "--lenpen", type=float, default=1.0, help="length penalty (default: %(default)s)"
    )
    parser.add_argument(
        "--decode-max-tokens",
        type=int,
        default=12000,
        metavar="N",
        help="source tokens in a batch of translations (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder for translations and results; run again, the command goes on there",
    )


def evaluation_options(args: argparse.Namespace) -> "SearchOptions":
    """How to search, from the options of `add_evaluation_arguments`."""
    from admin_nmt.evaluation.decoding import SearchOptions

    require_folder(args.output)
    require_at_least_one("--decode-max-tokens", args.decode_max_tokens)
    return SearchOptions(
        beam=args.beam, lenpen=args.lenpen, max_tokens=args.decode_max_tokens, cpu=args.cpu
    )


def require_checkpoints(paths: Sequence[str]) -> None:
    """Refuse a bad checkpoint among several before hours are spent on the others.

    Raises:
        UserError: one is missing, corrupt, or of another kind of model.
    """
    from admin_nmt.checkpoints.checkpoint import Checkpoint
    from admin_nmt.pruning.loading import is_stock

    for path in paths:
        is_stock(Checkpoint.open(path))


def load(
    args: argparse.Namespace, path: str, subset: str, option: str = "--gen-subset"
) -> "LoadedModel":
    """The checkpoint `path`, by the options of `add_model_arguments`, with data that has `subset`,
    which `option` names."""
    from admin_nmt.pruning.loading import load_model

    return load_model(
        path,
        args.data,
        subset=subset,
        source=args.source_lang,
        target=args.target_lang,
        cpu=args.cpu,
        option=option,
    )


def measuring_options(args: argparse.Namespace) -> "MeasuringOptions":
    """How importance is measured, from the options of `add_measuring_arguments`."""
    from admin_nmt.pruning.measuring import MeasuringOptions

    return MeasuringOptions(
        subset=args.subset,
        granularity=args.granularity,
        max_tokens=args.max_tokens,
        max_batches=args.max_batches,
        seed=args.seed,
    )
