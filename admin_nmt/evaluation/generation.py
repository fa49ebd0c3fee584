"""Translate one subset of a binarised data folder as `fairseq-generate` does."""

import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

from admin_nmt.errors import UserError
from admin_nmt.evaluation.decoding import Decoder, SearchOptions
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Translations:
    """Output in corpus order, tokenised and in BPE pieces.

    Attributes:
        hypotheses: N sentences.
        references: N sentences as fairseq reads them from the data folder, None if it has none.
        sources: N sentences as fairseq reads them.
    """

    hypotheses: list[str]
    references: list[str] | None
    sources: list[str]


def translate(
    data: str | os.PathLike[str],
    path: str,
    subset: str,
    source: str,
    target: str,
    options: SearchOptions | None = None,
) -> Translations:
    """Translate with the settings of `fairseq-generate`, in this process.

    Args:
        data: folder made by `fairseq-preprocess`.
        path: a checkpoint, or several joined by `:`, which then translate together.
        subset: such as `test`.
        source: language code.
        target: language code.
        options: how to search.

    Raises:
        UserError: fairseq cannot load a model or the data.
    """
    options = options or SearchOptions()
    models, task = load_ensemble(data, path, subset, source, target, options)
    decoder = Decoder(models, task, subset, options)
    with progress(logger, "translating", "sentences", total=decoder.num_sentences) as bar:
        return Translations(decoder.decode(bar.update), decoder.references, decoder.sources())


def load_ensemble(
    data: str | os.PathLike[str],
    path: str,
    subset: str,
    source: str,
    target: str,
    options: SearchOptions,
    *,
    for_search: bool = True,
) -> tuple[list[Any], Any]:
    """Models ready to search and the task with its data, as `fairseq-generate` makes them.

    Args:
        for_search: False leaves the parameters as training has them, so that other weights can be loaded
            (fairseq's `fconv` has others when it searches).

    Raises:
        UserError: fairseq cannot; its reason is in the message.
    """
    import torch
    from fairseq import checkpoint_utils, tasks, utils
    from fairseq import options as fairseq_options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    arguments = generate_arguments(data, path, subset, source, target, options)
    parser = fairseq_options.get_generation_parser()
    cfg = convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, arguments))
    try:
        task = tasks.setup_task(cfg.task)
        models, trained = checkpoint_utils.load_model_ensemble(utils.split_paths(path), task=task)
        task.load_dataset(subset, task_cfg=trained.task)
    except UserError:
        raise
    except Exception as error:  # fairseq raises nothing more precise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"fairseq cannot translate with {path}: {reason[:500]}") from error
    for model in models:
        if options.fp16:
            model.half()
        if torch.cuda.is_available() and not options.cpu:
            model.cuda()
        model.eval()
        if for_search:
            model.prepare_for_inference_(cfg)
    return models, task


def generate_arguments(
    data: str | os.PathLike[str],
    path: str,
    subset: str,
    source: str,
    target: str,
    options: SearchOptions,
) -> list[str]:
    """The options of `fairseq-generate`.

    fairseq leaves out the last batch without a word if its size is not a multiple of
    `--required-batch-size-multiple`, by default 8 (`fairseq.data.data_utils.batch_by_size`). In
    training that costs nothing; here it would cost up to seven sentences of the test set.
    """
    arguments = [str(data), "--path", path, "--source-lang", source, "--target-lang", target]
    arguments += ["--gen-subset", subset, "--beam", str(options.beam)]
    arguments += ["--lenpen", str(options.lenpen), "--max-tokens", str(options.max_tokens)]
    arguments += ["--required-batch-size-multiple", "1", "--log-format", "none"]
    return arguments + ["--cpu"] * options.cpu + ["--fp16"] * options.fp16


def generate_command(
    data: str | os.PathLike[str],
    path: str,
    subset: str,
    source: str,
    target: str,
    options: SearchOptions,
) -> list[str]:
    """The command line of `fairseq-generate`, with the Python that runs this."""
    arguments = generate_arguments(data, path, subset, source, target, options)
    return [sys.executable, "-u", "-m", "fairseq_cli.generate", *arguments]
