"""Profiling an architecture outside training, from the options of `fairseq-train`."""

import logging
from typing import Any

from admin_nmt.errors import UsageError
from admin_nmt.initialization.profile import (
    Profile,
    measure_profile,
    model_sizes,
    profile_batches,
)
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

DEFAULT_MAX_TOKENS = 4096


def profile_architecture(fairseq_args: list[str]) -> Profile:
    """Build task and model as `fairseq-train` would and measure the profile on training batches.

    Args:
        fairseq_args: DATA and options of `fairseq-train`. The batches are of `--max-tokens`
            (default 4096) tokens; `--cpu` keeps the model off a GPU.

    Returns:
        the profile, with the architecture and its options' main sizes in `measured`.

    Raises:
        UserError: bad data, an unknown architecture, or options that make no sense.
    """
    import torch
    from fairseq import options, tasks, utils
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    from admin_nmt.models.admin_transformer import AdminTransformerModel

    # No criterion is needed; named none, a line would advise to train with one.
    words = ["--criterion", "admin_label_smoothed_cross_entropy", *fairseq_args]
    args = options.parse_args_and_arch(options.get_training_parser(), words)
    cfg = convert_namespace_to_omegaconf(args)
    utils.set_torch_seed(cfg.common.seed)
    task = tasks.setup_task(cfg.task)
    model: Any = task.build_model(cfg.model)
    if not isinstance(model, AdminTransformerModel):
        raise UsageError(
            f"--arch {args.arch} is not one of admin_nmt; profiles exist only for those"
        )
    use_cuda = torch.cuda.is_available() and not cfg.common.cpu
    if use_cuda:
        model.cuda()
    epoch_itr = _first_epoch(cfg, task, model)
    samples = profile_batches(
        epoch_itr,
        model.cfg.admin_profile_batches,
        cfg.common.seed,
        utils.move_to_cuda if use_cuda else lambda batch: batch,
    )
    batches = progress(logger, "profiling", "batches", samples)
    profile = measure_profile(model, batches, cfg.common.seed)
    profile.measured |= {"arch": args.arch, **model_sizes(model)}
    return profile


def _first_epoch(cfg: Any, task: Any, model: Any) -> Any:
    """The batches with which `fairseq.trainer.Trainer.get_train_iterator` begins on one rank: other ones
    have other profiles."""
    from fairseq import utils

    data = cfg.dataset
    max_tokens = data.max_tokens
    if max_tokens is None and data.batch_size is None:
        max_tokens = DEFAULT_MAX_TOKENS
    task.load_dataset(data.train_subset, epoch=1, combine=True)
    return task.get_batch_iterator(
        dataset=task.dataset(data.train_subset),
        max_tokens=max_tokens,
        max_sentences=data.batch_size,
        max_positions=utils.resolve_max_positions(
            task.max_positions(), model.max_positions(), max_tokens
        ),
        ignore_invalid_inputs=True,
        required_batch_size_multiple=data.required_batch_size_multiple,
        seed=cfg.common.seed + (1 if data.update_ordered_indices_seed else 0),
        epoch=1,
        skip_remainder_batch=cfg.optimization.skip_remainder_batch,
        grouped_shuffling=data.grouped_shuffling,
    )
