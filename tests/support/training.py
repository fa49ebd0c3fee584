"""`fairseq-train` in this process, and what it leaves."""

import io
import json
import logging
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq_cli import train as fairseq_train

from admin_nmt.checkpoints.reading import load_checkpoint_file

Program = Callable[..., subprocess.CompletedProcess[str]]


COMMON = (
    "--arch admin_transformer_tiny --cpu --seed 3 --share-all-embeddings --max-tokens 300 "
    "--optimizer radam --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 10 --dropout 0.1 "
    "--criterion admin_label_smoothed_cross_entropy --label-smoothing 0.1 --no-epoch-checkpoints "
    "--disable-validation --num-workers 0 --log-interval 1 --log-format json"
).split()


def train_here(*words: object) -> str:
    """`fairseq-train WORDS` in this process; what it logs."""
    from fairseq import options as fairseq_options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    import admin_nmt  # noqa: F401

    parser = fairseq_options.get_training_parser()
    args = fairseq_options.parse_args_and_arch(parser, list(map(str, words)))
    return train_by(convert_namespace_to_omegaconf(args))


def train_by(cfg: Any) -> str:
    """Train in this process as if nothing had been trained in it before; what is logged."""
    forget_best()
    log, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(log), root.level
    handler.setFormatter(logging.Formatter("%(levelname)s | %(name)s | %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    silenced = logging.root.manager.disable  # by a study in this process, say
    logging.disable(logging.NOTSET)
    try:
        fairseq_train.main(cfg)
    finally:
        logging.disable(silenced)
        root.removeHandler(handler)
        root.setLevel(level)
    return log.getvalue()


def logged(log: str, tag: str = "train_inner") -> list[dict[str, str]]:
    """The lines that fairseq logs with `--log-format json`: of updates, `train` or `valid`."""
    return [json.loads(line) for line in re.findall(rf"\| {tag} \| (\{{.*\}})", log)]


def train(data: object, folder: Path, updates: int, *options: str, validate: bool = False) -> None:
    """Up to `updates`, from the checkpoint in `folder` if there is one."""
    given = [str(data), *COMMON, "--max-update", str(updates), "--save-dir", str(folder), *options]
    if validate:
        given.remove("--disable-validation")
    train_here(*given)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint_file(folder / "checkpoint_last.pt")["model"]


def require_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def forget_best() -> None:
    """fairseq keeps the best value and the count on its functions, which end with the process."""
    for function in (checkpoint_utils.save_checkpoint, fairseq_train.should_stop_early):
        function.__dict__.pop("best", None)
        function.__dict__.pop("num_runs", None)


TRAIN = [
    "--criterion",
    "label_smoothed_cross_entropy",
    "--label-smoothing",
    "0.1",
    "--share-all-embeddings",
    "--disable-validation",
    "--no-epoch-checkpoints",
    "--num-workers",
    "0",
    "--seed",
    "5",
]


def run_training(parse: Callable[..., Any], save_dir: Path, *options: str) -> dict[str, Any]:
    """`fairseq-train` in this process; returns the last checkpoint."""
    train_by(parse(*TRAIN, "--save-dir", str(save_dir), *options))
    return load_checkpoint_file(save_dir / "checkpoint_last.pt")


def require_learning(parse: Callable[..., Any], save_dir: Path, *options: str) -> dict[str, Any]:
    """A training at a high learning rate has finite weights and, in its last epoch, a lower loss than
    in its first; returns the last checkpoint."""
    given = ("--max-update", "25", "--lr", "1e-2", "--clip-norm", "1")
    cfg = parse(*TRAIN, "--save-dir", str(save_dir), *given, "--log-format", "json", *options)
    losses = [float(epoch["train_nll_loss"]) for epoch in logged(train_by(cfg), "train")]
    assert losses[-1] < losses[0] - 0.1, losses
    state = load_checkpoint_file(save_dir / "checkpoint_last.pt")
    assert all(torch.isfinite(value.float()).all() for value in state["model"].values())
    return state
