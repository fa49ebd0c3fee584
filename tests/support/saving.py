"""What fairseq's `save_checkpoint` needs, without a training."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fairseq import checkpoint_utils
from fairseq.dataclass.configs import CheckpointConfig
from omegaconf import OmegaConf


class Trainer:
    """As much of one as saving needs; a checkpoint is a text file with its update."""

    data_parallel_rank = 0
    should_save_checkpoint_on_current_rank = True
    checkpoint_suffix = ""
    task = None
    updates = 0

    def consolidate_optimizer(self) -> None:
        pass

    def get_num_updates(self) -> int:
        return self.updates

    def save_checkpoint(self, path: str, extra_state: dict[str, Any]) -> str:
        assert extra_state["val_loss"] is not None and extra_state["best"] is not None
        Path(path).write_text(str(self.updates))
        return path


def save(folder: Path, updates: int, value: float, epoch: int = 1, **options: Any) -> None:
    """`save_checkpoint` at the end of an epoch, with these options and a value of the validation."""
    trainer: Any = Trainer()
    trainer.updates = updates
    iterator = SimpleNamespace(epoch=epoch, end_of_epoch=lambda: True, state_dict=dict)
    cfg = OmegaConf.structured(CheckpointConfig(save_dir=str(folder), **options))
    checkpoint_utils.save_checkpoint(cfg, trainer, iterator, value)
