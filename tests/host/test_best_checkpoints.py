"""`--keep-best-checkpoints` keeps the best, and `--best-checkpoint-metric` is one that can work."""

import errno
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import CheckpointConfig
from fairseq.file_io import PathManager
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.errors import UsageError
from admin_nmt.host import best_checkpoints
from tests.support.saving import Trainer, save
from tests.support.training import forget_best, train


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(
        st.sampled_from([-3.0, 0.0, 9.9, 10.0, 20.5, 20.51, 100.0]), min_size=1, max_size=9
    ),
    most=st.integers(1, 4),
    maximize=st.booleans(),
    no_last=st.booleans(),
    resumed_before=st.integers(0, 9),
    suffix=st.sampled_from(["", "-shard0"]),
)
def test_the_n_best_stay_and_the_best_is_among_them(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], most: int, maximize: bool,
    no_last: bool, resumed_before: int, suffix: str,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("run")
    cfg = OmegaConf.structured(
        CheckpointConfig(
            save_dir=str(folder), keep_best_checkpoints=most, best_checkpoint_metric="bleu",
            maximize_best_checkpoint_metric=maximize, no_epoch_checkpoints=True,
            no_last_checkpoints=no_last,
        )
    )  # fmt: skip
    trainer: Any = Trainer()
    trainer.checkpoint_suffix = suffix
    iterator = SimpleNamespace(epoch=1, end_of_epoch=lambda: True, state_dict=dict)
    forget_best()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_checkpoints, "is_ours", lambda trainer: True)
        for update, value in enumerate(values, start=1):
            if update == resumed_before and update > 1:
                # Killed while its last file was written, it saves all of the last ones again.
                forget_best()
                last = best_checkpoints.name_of("bleu", values[update - 2], update - 1, suffix)
                if (folder / last).exists():
                    (folder / last).write_text("")
                best = max if maximize else min
                if update > 2:  # as the checkpoint before says
                    checkpoint_utils.save_checkpoint.best = best(values[: update - 2])
                checkpoint_utils.save_checkpoint(cfg, trainer, iterator, values[update - 2])
            trainer.updates = update
            checkpoint_utils.save_checkpoint(cfg, trainer, iterator, value)
            sign = 1 if maximize else -1
            expected = sorted(
                range(1, update + 1), key=lambda number: (sign * values[number - 1], number)
            )
            files = {path.name: int(path.read_text()) for path in folder.glob("checkpoint.best*")}
            assert sorted(files.values()) == sorted(expected[-most:])
            assert files == {
                best_checkpoints.name_of("bleu", values[number - 1], number, suffix): number
                for number in expected[-most:]
            }
            assert int((folder / f"checkpoint_best{suffix}.pt").read_text()) == expected[-1]
    assert cfg.keep_best_checkpoints == most


def test_the_last_checkpoint_is_written_after_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full in between costs none: the training goes on from the update before."""
    monkeypatch.setattr(best_checkpoints, "is_ours", lambda trainer: True)
    options = {"keep_best_checkpoints": 2, "no_epoch_checkpoints": True}
    last = tmp_path / "checkpoint_last.pt"
    forget_best()
    for update, value in ((1, 5.0), (2, 4.0)):
        save(tmp_path, update, value, epoch=update, **options)
    copy = PathManager.copy

    def full(source: str, target: str, overwrite: bool = False) -> Any:
        if "best_loss" in target:
            raise OSError(errno.ENOSPC, "No space left on device")
        return copy(source, target, overwrite)

    with monkeypatch.context() as patch:
        patch.setattr(PathManager, "copy", staticmethod(full))
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, 3, 3.0, epoch=3, **options)
    assert last.read_text() == "2"
    save(tmp_path, 3, 3.0, epoch=3, **options)
    forget_best()
    assert last.read_text() == "3"
    kept = {path.read_text() for path in tmp_path.glob("checkpoint.best*")}
    assert kept == {"2", "3"}


@pytest.mark.parametrize(
    ("change", "kept_by"),
    [
        ({}, "ours"),
        ({"keep_best_checkpoints": -1}, "fairseq"),
        ({"write_checkpoints_asynchronously": True}, "fairseq"),
        ({"no_save": True}, None),
        ({"val_loss": None}, None),
        ({"should_save_checkpoint_on_current_rank": False}, None),
    ],
    ids=str,
)
def test_who_keeps_the_best(
    change: dict[str, Any], kept_by: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody where nothing is saved: without a validation, and on ranks other than the first."""
    monkeypatch.setattr(best_checkpoints, "is_ours", lambda trainer: True)
    keepers = []
    monkeypatch.setattr(best_checkpoints, "_keep", lambda *_: keepers.append("ours"))

    def fairseqs(cfg: Any, *_: Any) -> None:
        if cfg.keep_best_checkpoints == asked["keep_best_checkpoints"]:
            keepers.append("fairseq")

    asked = {"keep_best_checkpoints": 2, "write_checkpoints_asynchronously": False, "no_save": False,
             "val_loss": 1.0, "no_last_checkpoints": True, "should_save_checkpoint_on_current_rank": True} | change  # fmt: skip
    both: Any = SimpleNamespace(**asked)
    best_checkpoints._the_best(fairseqs)(both, both, None, asked["val_loss"])
    assert keepers == ([kept_by] if kept_by else [])
    assert both.keep_best_checkpoints == asked["keep_best_checkpoints"]


def test_a_resumed_training_keeps_the_best(data_bin: Path, tmp_path: Path) -> None:
    options = ("--keep-best-checkpoints", "2", "--lr", "5", "--save-interval-updates", "3")
    for updates in (7, 12, 24):
        forget_best()
        train(data_bin, tmp_path, updates, *options, "--keep-interval-updates", "99", validate=True)
    forget_best()
    states = {path: load_checkpoint_file(path) for path in tmp_path.glob("checkpoint*.pt")}
    losses = {
        state["optimizer_history"][-1]["num_updates"]: state["extra_state"]["val_loss"]
        for state in states.values()
    }
    assert len(losses) >= 8
    best = sorted(losses, key=lambda number: (losses[number], -number))[:2]
    assert losses[best[0]] < losses[24]  # else the last would be the best, whatever is done
    kept = {
        path.name: state["optimizer_history"][-1]["num_updates"]
        for path, state in states.items()
        if re.match(r"checkpoint(\.|_)best", path.name)
    }
    assert kept == {"checkpoint_best.pt": best[0]} | {
        best_checkpoints.name_of("loss", losses[number], number): number for number in best
    }


def options(metric: str, maximize: bool) -> Any:
    return SimpleNamespace(best_checkpoint_metric=metric, maximize_best_checkpoint_metric=maximize)


@pytest.mark.parametrize(
    ("metric", "maximize", "message"),
    [
        ("bleu", False, "bleu needs --maximize-best-checkpoint-metric"),
        ("accuracy", False, "accuracy needs --report-accuracy"),
        ("BLEU", True, "BLEU: it is written bleu"),
        ("loss", True, r"--maximize-best-checkpoint-metric with --best-checkpoint-metric loss"),
    ],
)
def test_what_cannot_work_is_refused(metric: str, maximize: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        best_checkpoints.check(options(metric, maximize), {"bleu": True, "accuracy": False})


@pytest.mark.parametrize(("metric", "maximize"), [("bleu", True), ("loss", False), ("f1", False)])
def test_what_can_work_is_not(metric: str, maximize: bool) -> None:
    best_checkpoints.check(options(metric, maximize), {"bleu": True, "accuracy": False})


def test_a_trainer_refuses_bleu_that_nothing_computes(parse: Any, task: Any) -> None:
    from fairseq.trainer import Trainer

    from admin_nmt.models.admin_transformer import AdminTransformerModel

    def trainer(*options: str, arch: str = "admin_transformer_tiny") -> Any:
        best = ("--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric")
        cfg = parse("--arch", arch, *best, *options)
        model = task.build_model(cfg.model)
        assert isinstance(model, AdminTransformerModel) == arch.startswith("admin")
        return Trainer(cfg, task, model, task.build_criterion(cfg.criterion))

    with pytest.raises(UsageError, match="bleu needs --eval-bleu"):
        trainer()
    assert trainer("--eval-bleu")
    assert trainer("--encoder-layers", "1", "--decoder-layers", "1", arch="transformer")
