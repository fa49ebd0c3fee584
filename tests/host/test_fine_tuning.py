"""`--finetune-from-model` starts the training that it names, and no other goes on in its place."""

import shutil
from pathlib import Path

import pytest
import torch

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.errors import UserError
from admin_nmt.modules.head_names import Head
from admin_nmt.pruning import prune
from tests.support.training import require_equal, train, weights


def test_a_folder_with_another_training_is_refused(data_bin: Path, tmp_path: Path) -> None:
    run, pruned, other = tmp_path / "run", tmp_path / "pruned.pt", tmp_path / "other.pt"
    train(data_bin, run, 2)
    prune(Checkpoint.open(run / "checkpoint_last.pt"), [Head("E", 1, 1)]).save(pruned)
    before = (run / "checkpoint_last.pt").read_bytes()
    with pytest.raises(
        UserError, match=r"run holds a training that began without that .*--save-dir"
    ):
        train(data_bin, run, 4, "--finetune-from-model", str(pruned))
    assert (run / "checkpoint_last.pt").read_bytes() == before

    given = "--finetune-from-model", str(pruned)
    for folder, parts in ((tmp_path / "whole", (4,)), (tmp_path / "twice", (2, 4))):
        for updates in parts:
            train(data_bin, folder, updates, *given)
    require_equal(weights(tmp_path / "whole"), weights(tmp_path / "twice"))

    # Gone on with without the option, it is still the training that began from that file.
    heads = "--heads-per-layer", str(Checkpoint.open(pruned).setting("model", "heads_per_layer"))
    train(data_bin, tmp_path / "twice", 5, *heads)
    train(data_bin, tmp_path / "twice", 6, *given)

    shutil.copy(pruned, other)
    with pytest.raises(UserError, match=r"began from .*pruned\.pt \(checkpoint_last\.pt\)"):
        train(data_bin, tmp_path / "twice", 7, "--finetune-from-model", str(other))


def test_what_a_training_began_with_is_not_read_again_to_translate(
    data_bin: Path, tmp_path: Path
) -> None:
    """A job that is started again names its own last checkpoint, which was not there at first."""
    from fairseq.checkpoint_utils import load_model_ensemble_and_task

    last = tmp_path / "run" / "checkpoint_last.pt"
    train(data_bin, tmp_path / "run", 1, "--restore-file", str(last))
    own = tmp_path / "own.pt"
    shutil.copy(last, own)
    prune(Checkpoint.open(own), [Head("E", 1, 1)]).save(last)
    for _ in ("pruned", "junk"):
        (model,), *_ = load_model_ensemble_and_task([str(own)])
        assert not model.cfg.heads_per_layer
        last.write_bytes(b"junk")


def test_the_time_of_the_training_before_does_not_count(data_bin: Path, tmp_path: Path) -> None:
    """fairseq takes it over, and would stop at once with `--stop-time-hours`."""
    train(data_bin, tmp_path / "first", 1)
    first = tmp_path / "first" / "checkpoint_last.pt"
    state = load_checkpoint_file(first)
    state["extra_state"]["previous_training_time"] = 36000.0
    torch.save(state, first)
    given = "--finetune-from-model", str(first), "--stop-time-hours", "5"
    train(data_bin, tmp_path / "second", 3, *given)
    second = load_checkpoint_file(tmp_path / "second" / "checkpoint_last.pt")
    assert second["optimizer_history"][-1]["num_updates"] == 3
    assert second["extra_state"]["previous_training_time"] < 3600
