"""`--cuda-graphs`: frequent shapes of batches are recorded and replayed (`admin_nmt.modules.graphs`)."""

import logging
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from admin_nmt.errors import UsageError
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope
from admin_nmt.modules.graphs import CudaRecorder, Recorder, StepGraphs
from admin_nmt.modules.walk import is_watched

logger = logging.getLogger(__name__)

_MARK = "_admin_nmt_graphs"


def check(trainer: Any) -> None:
    """Refuse `--cuda-graphs` where a trainer could not replay its steps.

    Raises:
        UsageError: what stands in the way, by its name.
    """
    if not getattr(trainer.get_criterion(), "recordable", False):
        raise UsageError(
            "--cuda-graphs needs --criterion admin_label_smoothed_cross_entropy or "
            "label_smoothed_cross_entropy_rdrop: other criterions wait for the GPU"
        )
    for given, option in (
        (trainer.is_fsdp, "--ddp-backend fully_sharded"),
        (trainer.cfg.common.amp, "--amp (use --fp16 or --bf16)"),
        (trainer.cfg.common.profile, "--profile"),
        (getattr(trainer.get_criterion(), "guided", False), "--load-alignments"),
    ):
        if given:
            raise UsageError(f"--cuda-graphs is not supported with {option}")
    if trainer.data_parallel_world_size > 1:
        raise UsageError(
            f"--cuda-graphs is for one GPU, not {trainer.data_parallel_world_size}: gradients are "
            "exchanged during the backward pass, which has not been tried under a CUDA graph"
        )
    if not trainer.cuda:
        raise UsageError("--cuda-graphs needs a GPU; leave it out")
    if not getattr(trainer.cfg.task, "num_batch_buckets", 0):
        logger.warning(
            "--cuda-graphs without --num-batch-buckets: few batches have the same shape, so few will "
            "be replayed"
        )


def install(trainer: Any, recorder: Recorder, **limits: int) -> StepGraphs:
    """Let the training steps of `trainer` go through graphs of `recorder`; `limits` as of
    `StepGraphs`."""
    graphs = StepGraphs(trainer.get_model(), recorder, **limits)
    trainer.task.__dict__[_MARK] = graphs
    return graphs


def installed(trainer: Any) -> StepGraphs:
    """The graphs of a trainer; it has some."""
    return trainer.task.__dict__[_MARK]


def replayed(
    graphs: StepGraphs, criterion: Any, model: Any, sample: dict[str, Any]
) -> tuple[Any, int, dict[str, Any]]:
    """What `criterion(model, sample)` returns in training, by a replay where there is one."""
    plan = criterion.plan(model)
    batch = {name: sample[name] for name in ("net_input", "target")}
    figures = graphs((criterion, plan), batch, lambda batch: criterion.figures(model, batch, plan))
    return criterion.result(sample, figures, plan)


def _checked(init: Callable) -> Callable:
    """`--cuda-graphs` is refused by name where steps cannot be replayed."""

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if is_ours(self) and getattr(self.get_model().cfg, "cuda_graphs", False):
            check(self)

    return wrapped


def _with_graphs(build: Callable) -> Callable:
    """`--cuda-graphs`: the task is given the recorder of the graphs when the optimizer is built."""

    @wraps(build)
    def _build_optimizer(self: Any) -> None:
        build(self)
        if is_ours(self) and getattr(self.get_model().cfg, "cuda_graphs", False):
            install(self, CudaRecorder())

    return _build_optimizer


def _replaying(train_step: Callable) -> Callable:
    """`--cuda-graphs`: the criterion's forward and backward pass are replayed for frequent shapes of
    batches; the optimizer's loss scale stays outside."""

    @wraps(train_step)
    def wrapped(
        self: Any, sample: Any, model: Any, criterion: Any, *args: Any, **kwargs: Any
    ) -> Any:
        graphs = self.__dict__.get(_MARK)
        # fairseq's search for NaN sets hooks, which a replay would not call.
        if graphs is not None and graphs.model is model and not is_watched(model):
            criterion = partial(replayed, graphs, criterion)
        return train_step(self, sample, model, criterion, *args, **kwargs)

    return wrapped


_TRAINER = "fairseq.trainer:Trainer"
PATCHES = (
    Patch(_TRAINER, "__init__", _checked, Scope.OURS),
    Patch(_TRAINER, "_build_optimizer", _with_graphs, Scope.OURS),
    Patch("fairseq.tasks:FairseqTask", "train_step", _replaying, Scope.OURS),
)
