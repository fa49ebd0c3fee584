"""`--cuda-graphs` in fairseq's trainer: the same training, and what is refused."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from admin_nmt.errors import UsageError
from admin_nmt.host import graphs
from admin_nmt.modules.graphs import StepGraphs
from gpu_check.recorder import CpuRecorder

OPTIONS = ("--no-save", "--clip-norm", "1", "--label-smoothing", "0.1")
CRITERION = ("--criterion", "admin_label_smoothed_cross_entropy")


@pytest.fixture
def trainer_of(parse: Callable[..., Any], task: Any) -> Iterator[Callable[..., Any]]:
    """`trainer_of(*options)`: a trainer as it is before its first update."""
    from fairseq.trainer import Trainer

    def build(*options: str) -> Any:
        torch.manual_seed(1)
        task.__dict__.pop(graphs._MARK, None)
        cfg = parse(*OPTIONS, *options)
        model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
        return Trainer(cfg, task, model, criterion)

    yield build
    task.__dict__.pop(graphs._MARK, None)


@pytest.fixture(scope="module")
def samples(task: Any) -> list[Any]:
    """Two shapes of batches in turn, and one that comes once."""
    dataset, pad = task.dataset("train"), task.source_dictionary.pad()

    def padded(tokens: Tensor, left: bool) -> Tensor:
        """All to one length, as `--num-batch-buckets` does."""
        missing = 12 - tokens.shape[1]
        return torch.nn.functional.pad(tokens, (missing, 0) if left else (0, missing), value=pad)

    def sample(start: int, count: int) -> Any:
        batch = dataset.collater([dataset[index] for index in range(start, start + count)])
        inputs = batch["net_input"]
        inputs["src_tokens"] = padded(inputs["src_tokens"], left=True)
        inputs["prev_output_tokens"] = padded(inputs["prev_output_tokens"], left=False)
        return {**batch, "target": padded(batch["target"], left=False)}

    return [sample(10 * number, 4 + number % 2) for number in range(10)] + [sample(100, 7)]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--fp16", "--fp16-init-scale=8", "--fp16-scale-window=2", "--residual-attention=all"),
    ],
    ids=" ".join,
)
def test_trainings_are_the_same(
    trainer_of: Callable[..., Any], samples: list[Any], options: tuple[str, ...]
) -> None:
    """Updates of one and of more batches, with dropout and loss scales that change."""
    found: list[list[float]] = []
    updates = [samples[:1], samples[1:3], samples[3:4], samples[4:6], samples[6:8], samples[8:]]
    for recorded in (False, True):
        trainer = trainer_of(*CRITERION, "--dropout", "0.1", "--lr", "1e-2", *options)
        trainer.get_train_iterator(epoch=1)
        assert trainer.optimizer is not None
        if recorded:
            steps = graphs.install(trainer, CpuRecorder(), after=1)
        found.append([])
        for batches in updates:
            logged = trainer.train_step(batches)
            found[-1] += [logged["loss"], logged["nll_loss"]]
        weights = [p.detach().float().norm() for p in trainer.model.parameters()]
        found[-1].append(float(torch.stack(weights).norm()))
    assert len(steps) == 2 and steps.replays == 8
    assert len(set(found[0])) == len(found[0])
    assert found[1] == pytest.approx(found[0], rel=2e-2 if options else 1e-4)


def test_whoever_watches_the_model_sees_it_run(
    trainer_of: Callable[..., Any], samples: list[Any]
) -> None:
    """fairseq searches for NaN with hooks, which a replay would not call."""
    trainer = trainer_of(*CRITERION, "--init-type", "default")
    steps = graphs.install(trainer, CpuRecorder(), after=0)
    seen: list[int] = []
    handle = trainer.model.register_forward_hook(lambda *_: seen.append(1))
    trainer.train_step(samples[:1])
    assert (steps.replays, len(seen)) == (0, 1)
    handle.remove()
    trainer.train_step(samples[:1])
    assert (steps.replays, len(seen)) == (1, 1)
    # Another trainer of the same task, without graphs.
    other = trainer.task.build_model(trainer.cfg.model)
    trainer.task.train_step(samples[0], other, trainer.criterion, trainer.optimizer, 0)
    assert steps.replays == 1 and next(other.parameters()).grad is not None


def test_the_option_installs_graphs_where_there_is_a_gpu(
    trainer_of: Callable[..., Any], samples: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Any] = []
    monkeypatch.setattr(graphs, "check", checked.append)
    monkeypatch.setattr(graphs, "CudaRecorder", CpuRecorder)
    trainer = trainer_of(*CRITERION, "--init-type", "default", "--cuda-graphs")
    assert checked == [trainer]
    for _ in range(4):
        trainer.train_step(samples[:1])
    steps = graphs.installed(trainer)
    assert isinstance(steps, StepGraphs) and steps.replays == 2


def test_a_cpu_is_refused(trainer_of: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="--cuda-graphs needs a GPU"):
        trainer_of(*CRITERION, "--cuda-graphs")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"criterion": object()}, "--criterion admin_label_smoothed_cross_entropy or"),
        ({"amp": True}, r"not supported with --amp \(use --fp16 or --bf16\)"),
        ({"profile": True}, "not supported with --profile"),
        ({"is_fsdp": True}, "not supported with --ddp-backend fully_sharded"),
        ({"data_parallel_world_size": 2}, "for one GPU, not 2"),
        ({"num_batch_buckets": 0}, None),
        ({}, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_is_refused(
    change: dict[str, Any], reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    common = SimpleNamespace(amp=change.get("amp", False), profile=change.get("profile", False))
    buckets = SimpleNamespace(num_batch_buckets=change.get("num_batch_buckets", 8))
    criterion = change.get("criterion", SimpleNamespace(recordable=True))
    trainer = SimpleNamespace(
        get_criterion=lambda: criterion,
        is_fsdp=change.get("is_fsdp", False),
        cfg=SimpleNamespace(common=common, task=buckets),
        data_parallel_world_size=change.get("data_parallel_world_size", 1),
        cuda=True,
    )
    if reason:
        with pytest.raises(UsageError, match=f"--cuda-graphs .*{reason}"):
            graphs.check(trainer)
        return
    graphs.check(trainer)
    assert ("without --num-batch-buckets" in caplog.text) == (reason is None)
