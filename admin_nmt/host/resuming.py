"""What a checkpoint says about its model: complete when written, compared when training goes on.

fairseq leaves out languages that it took from file names, and going on from a checkpoint it compares
names and shapes of tensors only, which several values of `--init-type` have in common.
"""

import logging
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.checkpoints.settings import function_settings
from admin_nmt.checkpoints.tensors import leaders
from admin_nmt.errors import UserError
from admin_nmt.host.heads import DEFAULT_RESTORE_FILE, HEAD_SETTINGS
from admin_nmt.host.ours import is_ours
from admin_nmt.host.patch import Patch, Scope
from admin_nmt.option_names import flag, plain_value

logger = logging.getLogger(__name__)


def _recording_languages(init: Callable) -> Callable:
    """Checkpoints name their languages also where fairseq took them from file names."""

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        record_languages(self.cfg.task, self.task.cfg)

    return wrapped


def _same_function_first(load_checkpoint: Callable) -> Callable:
    """Going on from a checkpoint whose weights would compute something else (other residual connections,
    attention, activations or scaling of embeddings) is refused; fairseq compares names and shapes only."""

    @wraps(load_checkpoint)
    def wrapped(self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        require_same_function(self.get_model(), filename)
        return load_checkpoint(self, filename, *args, **kwargs)

    return wrapped


def _average_from_weights(load_checkpoint: Callable) -> Callable:
    """`--store-ema` from a checkpoint without a moving average, such as a pruned one: the average starts
    at its weights. fairseq means the same, but has deleted the weights by then (`KeyError: 'model'`)."""

    @wraps(load_checkpoint)
    def wrapped(self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        config = self.cfg.ema
        if not config.store_ema:
            return load_checkpoint(self, filename, *args, **kwargs)
        config.store_ema = False  # so that fairseq leaves the average alone
        try:
            extra_state = load_checkpoint(self, filename, *args, **kwargs)
        finally:
            config.store_ema = True
        if extra_state is not None:
            average = extra_state.get("ema")
            if average is None:
                logger.warning(f"{filename} has no moving average (--store-ema): it starts anew")
                average = self.get_model().state_dict()
            self.ema.restore(average)
            if config.ema_fp32:  # without a float32 copy in the checkpoint: from the average
                self.ema.build_fp32_params(extra_state.get("ema_fp32_params"))
        return extra_state

    return wrapped


def _average_in_phase(load_checkpoint: Callable) -> Callable:
    """`--store-ema --ema-update-freq N`: after a resume the average takes in the same updates as without one;
    fairseq counts anew."""

    @wraps(load_checkpoint)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        extra_state = load_checkpoint(self, *args, **kwargs)
        if extra_state is not None and self.cfg.ema.store_ema:
            frequency = max(self.cfg.ema.ema_update_freq, 1)
            self.ema.update_freq_counter = self.get_num_updates() % frequency
        return extra_state

    return wrapped


def _clock_runs_on(load_checkpoint: Callable) -> Callable:
    """`wall` in the log counts the seconds since the start of the program after a checkpoint within an epoch,
    too; fairseq stops its clock there and logs 0 until the next start."""

    @wraps(load_checkpoint)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        from fairseq.logging import metrics

        extra_state = load_checkpoint(self, *args, **kwargs)
        wall = metrics.get_meter("default", "wall") if is_ours(self) else None
        if wall is not None and wall.start_time is None:
            wall.reset()  # starts it; how long it ran in the program before is no time of this one
        return extra_state

    return wrapped


def _without_optimizer(load_checkpoint: Callable) -> Callable:
    """A training that goes on from a checkpoint of its own without a state of the optimizer
    (`--no-save-optimizer-state`) is told that updates and warm-up begin anew; fairseq says nothing."""

    @wraps(load_checkpoint)
    def wrapped(
        self: Any, filename: str, reset_optimizer: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        extra_state = load_checkpoint(self, filename, reset_optimizer, *args, **kwargs)
        if extra_state is None or reset_optimizer or self.get_num_updates() > 0:
            return extra_state
        history = (self._optim_history or [{}])[-1]
        made, folder = history.get("num_updates", 0), Path(self.cfg.checkpoint.save_dir).resolve()
        # Files that are made of checkpoints, such as averages, name no optimizer.
        if made > 0 and history.get("optimizer_name") and Path(filename).resolve().parent == folder:
            logger.warning(
                f"{filename} holds no state of the optimizer (--no-save-optimizer-state): after {made} "
                "updates the optimizer, the learning rate and the number of updates begin anew"
            )
        return extra_state

    return wrapped


def _there_first(load_checkpoint: Callable) -> Callable:
    """A file of `--restore-file` that is not there is refused; fairseq trains from scratch instead. In
    `--save-dir` it may be missing: so jobs that are started again name their own last checkpoint."""

    @wraps(load_checkpoint)
    def wrapped(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
        from fairseq.file_io import PathManager

        if cfg.restore_file != DEFAULT_RESTORE_FILE:
            path = cfg.restore_file.replace(".pt", f"{trainer.checkpoint_suffix or ''}.pt")
            own = Path(path).resolve().parent == Path(cfg.save_dir).resolve()
            if not own and not PathManager.exists(path):
                raise UserError(f"--restore-file {path} does not exist")
        return load_checkpoint(cfg, trainer, **kwargs)

    return wrapped


def _same_scheduler(load_state_dict: Callable) -> Callable:
    """A checkpoint with the state of another learning rate scheduler is one line."""

    @wraps(load_state_dict)
    def wrapped(self: Any, state: dict[str, Any]) -> None:
        if "best" not in state:
            raise UserError(
                "the checkpoint was written by a training with another learning rate scheduler: give the "
                "--lr-scheduler that it had, or --reset-lr-scheduler"
            )
        load_state_dict(self, state)

    return wrapped


def _with_bad_epochs(state_dict: Callable) -> Callable:
    """`--lr-scheduler reduce_lr_on_plateau --lr-patience N`: checkpoints keep the number of validations
    without a better value; fairseq counts from zero after a resume."""

    @wraps(state_dict)
    def wrapped(self: Any) -> dict[str, Any]:
        counts = {name: getattr(self.lr_scheduler, name) for name in _COUNTS}
        return state_dict(self) | counts

    return wrapped


def _counting_bad_epochs_on(load_state_dict: Callable) -> Callable:
    """`--lr-scheduler reduce_lr_on_plateau --lr-patience N` goes on counting after a resume."""

    @wraps(load_state_dict)
    def wrapped(self: Any, state: dict[str, Any]) -> None:
        load_state_dict(self, state)
        for name in _COUNTS:  # checkpoints of fairseq alone have none
            setattr(self.lr_scheduler, name, state.get(name, 0))

    return wrapped


def _stepped_by_the_last_epoch(load_checkpoint: Callable) -> Callable:
    """`--lr-scheduler reduce_lr_on_plateau`: a resume at the end of an epoch takes that epoch's validation
    into account. fairseq writes the checkpoint before the scheduler sees the value, and forgets it there."""

    @wraps(load_checkpoint)
    def wrapped(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
        from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule

        extra_state, epoch_itr = load_checkpoint(cfg, trainer, **kwargs)
        # No updates, no state: it was reset, by an option or --finetune-from-model, or not saved.
        kept = trainer.get_num_updates() > 0 and not cfg.reset_lr_scheduler
        if kept and isinstance(trainer.lr_scheduler, ReduceLROnPlateauLRSchedule):
            position, value = extra_state["train_iterator"], extra_state.get("val_loss")
            if value is not None and position.get("iterations_in_epoch", 0) == 0:
                trainer.lr_step(position["epoch"] - 1, value)
        return extra_state, epoch_itr

    return wrapped


#: What PyTorch's `ReduceLROnPlateau` counts.
_COUNTS = ("num_bad_epochs", "cooldown_counter")


def record_languages(saved: Any, used: Any) -> None:
    """Copy languages into the configuration that checkpoints get, in place.

    Args:
        saved: configuration of the task as the user gave it.
        used: configuration of the task as it runs.
    """
    for name in ("source_lang", "target_lang"):
        if name in saved and getattr(saved, name) is None:
            setattr(saved, name, getattr(used, name, None))


def require_same_function(model: Any, path: str) -> None:
    """Refuse to go on from a Transformer whose weights would compute something else: with heads of another
    size, another activation, or another of `function_settings`; from an `admin_transformer` also with
    other factors on shortcuts, without its carried scores, or with all of its masked heads. So are embeddings
    that differ where the model has one.

    Weights of a model without omegas may become an ADMIN model with omega = 1, which is equal.

    Args:
        model: to be loaded; other models than ours pass.
        path: a checkpoint; one that is not there passes.

    Raises:
        UserError: naming both values of `--init-type`, or the option that is missing or differs.
    """
    from admin_nmt.checkpoints.checkpoint import TRANSFORMERS, Checkpoint
    from admin_nmt.models.admin_transformer import AdminTransformerModel
    from admin_nmt.models.config import to_config
    from admin_nmt.models.settings import model_settings

    if not isinstance(model, AdminTransformerModel) or not Path(path).is_file():
        return
    checkpoint = Checkpoint.open(path)
    if checkpoint.family not in TRANSFORMERS:
        return  # names of its tensors tell
    settings = model_settings(checkpoint)
    config = to_config(settings)
    _require_same_head_sizes(config, model.cfg, path)
    _require_same_settings(config, model.cfg, path, is_stock=checkpoint.family == "transformer")
    _require_ties(checkpoint.weights, model.state_dict(), path)
    if checkpoint.family != "admin_transformer":
        return
    theirs, ours = map(_factors, (config, model.cfg))
    if len(theirs) != len(ours):
        return  # another depth: names of its tensors tell
    if any(a != b and (a, b) != (1.0, "omega") for a, b in zip(theirs, ours, strict=True)):
        name = plain_value(model.cfg.init_type)
        raise UserError(
            f"checkpoint {path} was trained with --init-type {settings.init_type}: with --init-type "
            f"{name} its residual connections would compute something else; give --init-type "
            f"{settings.init_type}, or start from scratch"
        )
    _require_same_scores(config, model.cfg, path)
    _require_a_choice_of_mask(config, model.cfg, path)


#: Settings with a rule of their own here: other values may compute the same, or shapes tell them.
_OWN_RULE = (
    "init_type",
    "residual_attention",
    "residual_attention_reduce",
    "encoder_attention_heads",
    "decoder_attention_heads",
    *HEAD_SETTINGS,
)


def _require_same_settings(theirs: Any, ours: Any, path: str, *, is_stock: bool) -> None:
    """Refuse to go on with another value of a setting that changes what weights compute, all but
    `_OWN_RULE`; a checkpoint of fairseq's `transformer` has the values of a plain one."""

    def value(cfg: Any, name: str) -> Any:
        return plain_value(getattr(cfg, name)) or "none"

    for name, plain in function_settings("admin_transformer").items():
        if name in _OWN_RULE:
            continue
        there = plain if is_stock and plain is not None else value(theirs, name)
        here = value(ours, name)
        if there != here:
            trained, asked = _as_option(name, there), _as_option(name, here)
            raise UserError(
                f"checkpoint {path} was trained {trained}: {asked} the same weights would compute something "
                f"else; train on {trained}, or start from scratch"
            )


def _as_option(name: str, value: Any) -> str:
    """A setting as one gives it: `with --activation-fn gelu`, `without --no-scale-embedding`."""
    if value == "none":
        return f"without {flag(name)}"
    return f"with {flag(name)}" if value is True else f"with {flag(name)} {value}"


def _require_same_head_sizes(theirs: Any, ours: Any, path: str) -> None:
    """Refuse to go on with another number of heads of the same width: the shapes are equal."""
    for stack in ("encoder", "decoder"):
        there, here = (getattr(cfg, stack) for cfg in (theirs, ours))
        if there.embed_dim == here.embed_dim and there.attention_heads != here.attention_heads:
            raise UserError(
                f"checkpoint {path} was trained with --{stack}-attention-heads {there.attention_heads}: "
                f"with {here.attention_heads} attention would compute something else; give "
                f"--{stack}-attention-heads {there.attention_heads}, or start from scratch"
            )


def _require_ties(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], path: str) -> None:
    """Refuse to make one embedding of several that differ: the last to be copied would be taken for all."""
    for name, leader in leaders(ours).items():
        if not {name, leader} <= theirs.keys() or torch.equal(theirs[name], theirs[leader]):
            continue
        option = "all-embeddings" if "encoder" in leader else "decoder-input-output-embed"
        raise UserError(
            f"checkpoint {path} has other numbers in {name} than in {leader}, of which "
            f"--share-{option} makes one: train on without it, or start from scratch"
        )


def _require_same_scores(theirs: Any, ours: Any, path: str) -> None:
    """Refuse to go on without the residual attention of a checkpoint, or with the other reduction.
    A plain model may become a RealFormer."""
    from admin_nmt.modules.residual_attention import residual_kinds

    kinds = residual_kinds(theirs.residual_attention)
    if not kinds:
        return
    lost = kinds - residual_kinds(ours.residual_attention)
    if lost or theirs.residual_attention_reduce != ours.residual_attention_reduce:
        option = (
            f"--residual-attention {theirs.residual_attention}"
            if lost
            else f"--residual-attention-reduce {theirs.residual_attention_reduce}"
        )
        raise UserError(
            f"checkpoint {path} was trained with {option}: without it attention would compute "
            "something else; give it again, or start from scratch"
        )


def _require_a_choice_of_mask(theirs: Any, ours: Any, path: str) -> None:
    """Refuse to go on from a model with masked heads where nothing is said about them: the shapes
    are equal, and all heads would train again. An empty mask says that they shall."""
    if theirs.head_mask and ours.head_mask is None:
        raise UserError(
            f"checkpoint {path} has masked heads: give --head-mask {theirs.head_mask} (with "
            f"fairseq-hydra-train model.head_mask=[{theirs.head_mask}]), or --head-mask '' to train all "
            "heads again"
        )


def _factors(cfg: Any) -> list[float | str]:
    """What is on each shortcut, in forward order: a constant, or the name of a parameter."""
    from admin_nmt.initialization.scheme import Stack
    from admin_nmt.models.admin_transformer import AdminTransformerModel
    from admin_nmt.modules.residual import ReZeroResidual

    scheme = AdminTransformerModel.scheme_of(cfg)
    stacks: tuple[Stack, Stack] = ("encoder", "decoder")
    residuals = [
        scheme.residual(stack, position, 1)
        for stack in stacks
        for position in range(scheme.depth.num_residuals(stack))
    ]
    names = ("alpha" if isinstance(residual, ReZeroResidual) else "omega" for residual in residuals)
    return [
        name if residual.constant is None else residual.constant
        for name, residual in zip(names, residuals, strict=True)
    ]


_TRAINER = "fairseq.trainer:Trainer"
_PLATEAU = "fairseq.optim.lr_scheduler.reduce_lr_on_plateau:ReduceLROnPlateauLRSchedule"
PATCHES = (
    Patch(_TRAINER, "__init__", _recording_languages, Scope.ALL),
    Patch(_TRAINER, "load_checkpoint", _same_function_first, Scope.OURS),
    Patch(_TRAINER, "load_checkpoint", _average_from_weights, Scope.FAILURES),
    Patch(_TRAINER, "load_checkpoint", _average_in_phase, Scope.ALL),
    Patch(_TRAINER, "load_checkpoint", _clock_runs_on, Scope.OURS),
    Patch(_TRAINER, "load_checkpoint", _without_optimizer, Scope.ALL),
    Patch("fairseq.checkpoint_utils", "load_checkpoint", _there_first, Scope.ALL),
    Patch("fairseq.checkpoint_utils", "load_checkpoint", _stepped_by_the_last_epoch, Scope.ALL),
    Patch(_PLATEAU, "state_dict", _with_bad_epochs, Scope.ALL),
    Patch(_PLATEAU, "load_state_dict", _counting_bad_epochs_on, Scope.ALL),
    *(
        Patch(
            f"fairseq.optim.lr_scheduler.{place}", "load_state_dict", _same_scheduler, Scope.ERRORS
        )
        for place in (
            "fairseq_lr_scheduler:FairseqLRScheduler",
            "reduce_lr_on_plateau:ReduceLROnPlateauLRSchedule",
        )
    ),
)
