"""The log of an update: fairseq's numbers, without reading them before somebody asks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from admin_nmt.host.waiting import LogOfUpdate


class NoWaiting(TorchDispatchMode):
    """Refuses to read numbers out of tensors."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        assert function is not torch.ops.aten._local_scalar_dense.default, "the host waits"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", [0.5, 3.0])
def test_the_numbers_are_fairseqs_and_nobody_waits(
    parse: Callable[..., Any], task: Any, norm: float
) -> None:
    from fairseq.logging import metrics
    from fairseq.trainer import Trainer

    cfg = parse(
        "--no-save", "--clip-norm", "1", "--criterion", "label_smoothed_cross_entropy_rdrop",
        "--label-smoothing", "0.1",
    )  # fmt: skip
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    logs = [
        {"loss": torch.tensor(30.0 + n), "nll_loss": torch.tensor(20.0), "ntokens": 9, "nsentences": 2,
         "sample_size": 9, "rdrop_kl": torch.tensor(2.5), "rdrop_kl_ntokens": 9}
        for n in range(2)
    ]  # fmt: skip
    (patched, stock) = (Trainer._reduce_and_log_stats, Trainer._reduce_and_log_stats.__wrapped__)
    found = []
    for function, mode in ((stock, torch.no_grad()), (patched, NoWaiting())):
        with metrics.aggregate(new_root=True) as meters:
            with mode:
                log = function(trainer, logs, 18, torch.tensor(norm))
            found.append((dict(log), {k: v for k, v in meters.get_smoothed_values().items() if k not in ("ups", "wps")}))  # fmt: skip
    assert isinstance(log, LogOfUpdate) and len(log) == len(found[0][0])
    assert found[1] == found[0]
    assert found[0][0]["rdrop_kl"] > 0 and found[0][1]["clip"] == 100 * (norm > 1)


def test_a_criterion_without_a_loss_is_fairseqs_affair(
    parse: Callable[..., Any], task: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from fairseq.logging import metrics
    from fairseq.trainer import Trainer

    cfg = parse("--no-save")
    trainer = Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))
    trainer.task = type("Task", (), {"reduce_metrics": lambda *_: None})()
    with metrics.aggregate(new_root=True):
        assert trainer._reduce_and_log_stats([{}], 18)["loss"] == -1
    assert "did not log a 'loss' value" in caplog.text
