"""`fairseq-train` in this process, and what it leaves."""

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


def train(data: object, folder: Path, updates: int, *options: str, validate: bool = False) -> None:
    """Up to `updates`, from the checkpoint in `folder` if there is one."""
    from fairseq import options as fairseq_options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq_cli.train import main

    import admin_nmt  # noqa: F401

    given = [str(data), *COMMON, "--max-update", str(updates), "--save-dir", str(folder), *options]
    if validate:
        given.remove("--disable-validation")
    parser = fairseq_options.get_training_parser()
    main(convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, given)))


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
    from fairseq_cli import train

    train.main(parse(*TRAIN, "--save-dir", str(save_dir), *options))
    return load_checkpoint_file(save_dir / "checkpoint_last.pt")
