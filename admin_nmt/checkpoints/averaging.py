"""Average the parameters of several checkpoints of one training run.

The result is that of fairseq's `scripts/average_checkpoints.py`: for every entry of the state dict
the mean over the checkpoints, everything else (configuration, optimizer, ...) from the first one,
which is the newest when they are chosen by number. Only what belongs to other weights than the mean is left
out: the float32 copies of its 16-bit weights, and its moving average (`--store-ema`).

- Floating-point entries: sum, newest first, divided by the number of checkpoints. 16-bit ones are
  summed and saved in float32.
- Integer entries: sum, then floor division; summed in 64 bits so that it cannot overflow.

Unlike the script this reads one checkpoint at a time from disk and keeps entries that are one
tensor under several names (tied embeddings) one tensor, in memory as in the file.
"""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from admin_nmt.checkpoints.checkpoint import FLOAT32_COPIES, MOVING_AVERAGE, Checkpoint
from admin_nmt.checkpoints.settings import function_settings
from admin_nmt.checkpoints.tensors import leaders
from admin_nmt.errors import UsageError, UserError, require_at_least_one
from admin_nmt.progress import progress

logger = logging.getLogger(__name__)

_EPOCH_NAME = re.compile(r"checkpoint(\d+)\.pt")
_UPDATE_NAME = re.compile(r"checkpoint_\d+_(\d+)\.pt")


def select_checkpoints(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    num_epochs: int | None = None,
    num_updates: int | None = None,
    upper_bound: int | None = None,
) -> list[Path]:
    """The files to average, in the order in which fairseq's script takes them.

    Args:
        inputs: checkpoint files, or one folder.
        num_epochs: number of `checkpointE.pt` of the folder to average, the last ones.
        num_updates: number of `checkpoint_E_U.pt` of the folder to average, the last ones.
        upper_bound: consider only E (or U) up to this, inclusive.

    Returns:
        Newest first for a folder, else as given.

    Raises:
        UsageError: options that do not fit together or the inputs.
        UserError: no folder of that name, or too few checkpoints in it.
    """
    paths = [Path(path) for path in inputs]
    if not paths:
        raise UsageError("--inputs: give one folder or at least one checkpoint file")
    if num_epochs is not None and num_updates is not None:
        raise UsageError("--num-epoch-checkpoints and --num-update-checkpoints exclude each other")
    if num_epochs is not None:
        folder = _only_folder(paths, "--num-epoch-checkpoints")
        return _last(folder, num_epochs, "--num-epoch-checkpoints", _EPOCH_NAME, upper_bound)
    if num_updates is not None:
        folder = _only_folder(paths, "--num-update-checkpoints")
        return _last(folder, num_updates, "--num-update-checkpoints", _UPDATE_NAME, upper_bound)
    return _given_files(paths, upper_bound)


def _only_folder(paths: list[Path], option: str) -> Path:
    if len(paths) > 1 or paths[0].is_file():
        raise UsageError(
            f"{option} chooses from one folder: give one folder to --inputs, "
            "or files without this option"
        )
    return paths[0]


def _given_files(paths: list[Path], upper_bound: int | None) -> list[Path]:
    for path in paths:
        if path.is_dir():
            raise UsageError(
                f"--inputs {path} is a folder: say which of its checkpoints to take with "
                "--num-epoch-checkpoints or --num-update-checkpoints"
            )
    if upper_bound is not None:
        raise UsageError(
            "--checkpoint-upper-bound needs --num-epoch-checkpoints or --num-update-checkpoints"
        )
    return paths


def _last(
    folder: Path, count: int, option: str, pattern: re.Pattern[str], upper_bound: int | None
) -> list[Path]:
    """The `count` files of `folder` with the highest numbers in their names, highest first."""
    require_at_least_one(option, count)
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise UserError(f"cannot read folder {folder}: {error.strerror or error}") from error
    matches = [match for name in names if (match := pattern.fullmatch(name))]
    found = sorted(((int(match[1]), match[0]) for match in matches), reverse=True)
    if upper_bound is not None:
        found = [pair for pair in found if pair[0] <= upper_bound]
    if len(found) < count:
        kind = "checkpoint_E_U.pt" if pattern is _UPDATE_NAME else "checkpointE.pt"
        bound = "" if upper_bound is None else f" up to --checkpoint-upper-bound {upper_bound}"
        raise UserError(
            f"{option} {count}: {folder} holds {len(found) or 'no'} checkpoints named {kind}{bound}"
        )
    return [folder / name for _, name in found[:count]]


def average(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The mean of several checkpoints of one training.

    Memory: one model in the precision of the sum. The checkpoint that is being added, and what is
    taken over from the first one, stay mapped to their files.

    Args:
        checkpoints: at least one; other state comes from the first.

    Raises:
        UserError: one is of another model than the first.
    """
    first = checkpoints[0]
    total = _ModelSum(first.weights)
    for other in progress(
        logger, "averaging", "checkpoints", checkpoints[1:], initial=1, total=len(checkpoints)
    ):
        require_same_model(first, other)
        total.add(other.weights)
    mean = total.mean({name: value.dtype for name, value in first.weights.items()})
    state = dict(first.state) | {"model": type(first.weights)(mean)}
    optimizer_state = state.get("last_optimizer_state")
    if isinstance(optimizer_state, dict):
        state["last_optimizer_state"] = {
            name: value for name, value in optimizer_state.items() if name != FLOAT32_COPIES
        }
    extra_state = state.get("extra_state")
    if isinstance(extra_state, dict):
        state["extra_state"] = {
            name: value for name, value in extra_state.items() if name not in MOVING_AVERAGE
        }
    return Checkpoint(first.path, state)


class _ModelSum:
    """Running sum of state dicts; names that share a tensor in all of them share their sum."""

    def __init__(self, model: dict[str, Tensor]) -> None:
        self.count = 1
        self.leader = leaders(model)
        self.entries: dict[str, Tensor] = {}
        for name, value in model.items():
            leader = self.leader[name]
            self.entries[name] = (
                value.to(_sum_dtype(value.dtype), copy=True)
                if leader == name
                else self.entries[leader]
            )

    def add(self, model: dict[str, Tensor]) -> None:
        """Add one more state dict with the same names and shapes."""
        leader_here = leaders(model)
        for name, leader in self.leader.items():
            if name != leader and leader_here[name] != leader_here[leader]:
                self.leader[name] = name
                self.entries[name] = self.entries[name].clone()
        for name, value in model.items():
            if self.leader[name] == name:
                self.entries[name] += value
        self.count += 1

    def mean(self, dtypes: dict[str, torch.dtype]) -> dict[str, Tensor]:
        """The mean of every entry; integers go back to the type of `dtypes`."""
        means: dict[str, Tensor] = {}
        for name, value in self.entries.items():
            if self.leader[name] != name:
                means[name] = means[self.leader[name]]
            elif _is_integer(value.dtype):
                means[name] = torch.floor_divide(value, self.count).to(dtypes[name])
            else:
                means[name] = value.div_(self.count)
        return means


def _is_integer(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex)


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    if _is_integer(dtype):
        return torch.int64
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def require_same_model(first: Checkpoint, other: Checkpoint) -> None:
    """Refuse a checkpoint whose model differs from the first one's, and say where.

    Args:
        first: what the others are compared with.
        other: one of the others.

    Raises:
        UserError: another architecture, setting, parameter, shape, or kind of number.
    """
    refusal = f"{other.path} is not of the same model as {first.path}"
    archs = first.architecture, other.architecture
    if None not in archs and archs[0] != archs[1]:
        raise UserError(f"{refusal}: architecture {archs[1]} instead of {archs[0]}")
    for name, missing in function_settings(first.family).items():
        ours_is, theirs_is = first.setting("model", name), other.setting("model", name)
        if missing is not None:
            ours_is, theirs_is = ours_is or missing, theirs_is or missing
        if None not in (ours_is, theirs_is) and str(ours_is) != str(theirs_is):
            raise UserError(f"{refusal}: {name} {theirs_is} instead of {ours_is}")
    entries, model = first.weights, other.weights
    for name in [*entries, *model]:
        if name not in model:
            raise UserError(f"{refusal}: it has no parameter {name}")
        if name not in entries:
            raise UserError(f"{refusal}: parameter {name} is in {other.path} only")
        ours, theirs = entries[name], model[name]
        if ours.shape != theirs.shape:
            raise UserError(
                f"{refusal}: parameter {name} has shape {tuple(theirs.shape)} "
                f"instead of {tuple(ours.shape)}"
            )
        if _is_integer(ours.dtype) != _is_integer(theirs.dtype):
            raise UserError(f"{refusal}: parameter {name} has type {theirs.dtype}")
