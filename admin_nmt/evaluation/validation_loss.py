"""The validation loss of a model: teacher forced, without label smoothing."""

import logging
import math
from typing import Any

import torch
import torch.nn.functional as F

from admin_nmt.errors import UserError
from admin_nmt.evaluation.batches import random_batches
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)


@torch.no_grad()
def nll_loss(model: Any, task: Any, subset: str, max_tokens: int = 2048) -> float:
    """Negative log-likelihood of the references, in bits per target token: fairseq's `nll_loss`.

    It does not depend on the criterion of the training nor on its label smoothing, so models of any
    training can be compared, and with the log of their training.

    Args:
        model: in evaluation mode, of any kind that fairseq trains for translation.
        task: fairseq's translation task over the data.
        subset: of the data; a pair that is longer than the model's positions is left out.
        max_tokens: of one batch.

    Returns:
        the mean; NaN or infinite if the model has diverged.

    Raises:
        UserError: the subset has no sentence.
    """
    pad = task.target_dictionary.pad()
    total, num_tokens = 0.0, 0
    batches = random_batches(task, model, subset, max_tokens, seed=1)
    for sample in progress(logger, "measuring the loss", "batches", batches):
        output = model(**sample["net_input"])
        lprobs = model.get_normalized_probs(output, log_probs=True, sample=sample)  # (B, T, V)
        target = model.get_targets(sample, output)  # (B, T)
        total += F.nll_loss(
            lprobs.flatten(0, 1), target.flatten(), ignore_index=pad, reduction="sum"
        ).item()
        num_tokens += sample["ntokens"]
    if not num_tokens:
        raise UserError(f"subset {subset} has no sentence to measure the loss on")
    return total / num_tokens / math.log(2)
