"""fairseq's own trainer over any model, as `fairseq-train` would build it."""

import logging
import warnings
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import admin_nmt.registration  # noqa: F401
from admin_nmt.host import graphs
from admin_nmt.modules.graphs import shape_of
from gpu_check.floor import Shape
from gpu_check.recorder import CpuRecorder

_GRAPHS = "--cuda-graphs"
#: Optimizer and learning rate of the checks and measurements.
OPTIMIZER = ["--adam-betas", "(0.9, 0.98)", "--lr", "1e-4", "--lr-scheduler", "fixed"]


class OutOfMemoryError(Exception):
    """The GPU is full; fairseq's trainer by itself would leave the batch out and go on."""


def quiet() -> None:
    """No logs and warnings of fairseq and PyTorch among the results."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def shape_options(shape: Shape) -> list[str]:
    """The sizes of a model."""
    options = []
    for stack, layers in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers)):
        options += [f"--{stack}-layers", str(layers)]
        options += [f"--{stack}-embed-dim", str(shape.dim)]
        options += [f"--{stack}-ffn-embed-dim", str(shape.ffn)]
        options += [f"--{stack}-attention-heads", str(shape.heads)]
    return options


def dropout_options(p: float) -> list[str]:
    """The same dropout everywhere; fairseq's architectures differ in it."""
    names = ("--dropout", "--attention-dropout", "--activation-dropout")
    return [part for name in names for part in (name, str(p))]


def build_trainer(
    data: Path, device: str, options: Sequence[str], max_tokens: int, fast: bool = False
) -> Any:
    """A trainer as `fairseq-train DATA *options` has it before its first update.

    `--init-type admin` is profiled here, on the first batch. With `fast`, weights are drawn on the
    device, where hundreds of millions take no time, but other numbers than fairseq's. On the CPU
    `--cuda-graphs` means their stand-in.
    """
    from fairseq import options as fairseq_options
    from fairseq import tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.trainer import Trainer

    rehearsed = device == "cpu" and _GRAPHS in options
    options = [option for option in options if not (rehearsed and option == _GRAPHS)]
    arguments = [
        str(data), "--share-all-embeddings", "--no-save", "--max-tokens", str(max_tokens),
        "--num-workers", "0", "--seed", "1", "--distributed-world-size", "1", *(["--cpu"] if device == "cpu" else []), *options,
    ]  # fmt: skip
    cfg = convert_namespace_to_omegaconf(
        fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), arguments)
    )
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    with torch.device(device if fast else "cpu"):
        model = task.build_model(cfg.model)
    trainer = Trainer(cfg, task, model, task.build_criterion(cfg.criterion))
    trainer.get_train_iterator(epoch=1)
    trainer.cuda_env = None  # it would reset the peak of memory after every update
    trainer._log_oom = _refuse_to_go_on
    # After an error it would write `crash.pt`, whatever --no-save says, and fail where there is no folder
    # for that: then this would be the error that is told.
    trainer.save_checkpoint = _keep_nothing
    if rehearsed:
        graphs.install(trainer, CpuRecorder())
    return trainer


def batches(trainer: Any, max_tokens: int, count: int, one_shape: bool = False) -> list[Any]:
    """`count` shuffled training batches of real sentences; they repeat where data are few. With
    `one_shape`, only batches of the most frequent shape (see `--num-batch-buckets`)."""
    task = trainer.task
    # fairseq keeps iterators by data set alone, whatever --max-tokens is asked for.
    iterator = task.get_batch_iterator(
        task.dataset("train"), max_tokens=max_tokens, seed=1, disable_iterator_cache=True
    )
    found = iterator.next_epoch_itr(shuffle=True)
    if one_shape:
        by_shape = defaultdict(list)
        for sample in found:
            by_shape[shape_of({**sample["net_input"], "target": sample["target"]})].append(sample)
        found = max(by_shape.values(), key=len)
    found = list(islice(found, count))
    return [found[number % len(found)] for number in range(count)]


def update(trainer: Any, batch: Any) -> None:
    """One update of a trainer.

    Raises:
        OutOfMemoryError: the GPU is full.
    """
    # fairseq's R-Drop criterion replaces the input in the batch by its double.
    trainer.train_step([{**batch, "net_input": dict(batch["net_input"])}])


def _refuse_to_go_on(error: RuntimeError) -> None:
    raise OutOfMemoryError(str(error).splitlines()[0])


def _keep_nothing(*_: Any, **__: Any) -> None:
    """In place of `Trainer.save_checkpoint`."""


def losses(trainer: Any, samples: Sequence[Any]) -> list[float]:
    """Loss per token of each update over `samples`, in nats."""
    found: list[float] = []
    task_step = trainer.task.train_step

    def recorded(*args: Any, **kwargs: Any) -> Any:
        loss, sample_size, log = task_step(*args, **kwargs)
        found.append(float(log["loss"]) / float(sample_size))
        return loss, sample_size, log

    trainer.task.train_step = recorded
    try:
        for sample in samples:
            update(trainer, sample)
    finally:
        del trainer.task.train_step
    return found
