"""A checkpoint as fairseq's trainer writes it, without what belongs to one training: a stock fairseq
loads it, and a new training starts from it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

#: What replaces the criterion of a run that a stock fairseq does not know.
STOCK_CRITERION: dict[str, Any] = {
    "_name": "label_smoothed_cross_entropy",
    "label_smoothing": 0.1,
    "report_accuracy": False,
    "ignore_prefix_size": 0,
    "sentence_avg": False,
}
#: For users, where the original had a state of the optimizer.
OPTIMIZER_DROPPED = (
    "optimizer state dropped: it belongs to the parameters as they were; to train on, start from this "
    "file with --finetune-from-model and a new --save-dir"
)


def untrained(num_updates: int) -> dict[str, Any]:
    """The entries of a checkpoint that say how its training stands, as of one that has not begun.

    Nothing is left of what the optimizer, the learning rate, the data iterator, meters, `--patience`, the
    best value and a moving average (`--store-ema`) had come to: they belong to other weights.

    Args:
        num_updates: that the model has been trained for, for those who ask; a training counts from 0.
    """
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}}
    return {
        "optimizer_history": [history | {"num_updates": num_updates}],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def stock_state(
    config: Mapping[str, Any],
    model: Mapping[str, Tensor],
    num_updates: int,
    task_state: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of the file: plain containers and tensors only.

    Args:
        config: group -> settings, complete.
        model: state dict.
        num_updates: that the model has been trained for.
        task_state: of the task.
    """
    return {
        "args": None,
        "cfg": dict(config),
        "model": dict(model),
        "criterion": None,
        "task_state": dict(task_state or {}),
    } | untrained(num_updates)
