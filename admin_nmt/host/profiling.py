"""ADMIN's profile at the start of `fairseq-train`, with no second command and no side file.

fairseq builds its optimizer right after it has made the first training iterator, and its fp16 and
bf16 optimizers copy the parameters then. So the moment to set omegas is when
`Trainer.get_train_iterator` returns for the first time: data and model are there, a checkpoint has
been loaded if there was one, and nothing has been copied.
"""

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from admin_nmt.errors import UsageError, UserError
from admin_nmt.files import require_free_space
from admin_nmt.host.patch import Patch, Scope
from admin_nmt.initialization.profile import (
    Profile,
    apply_profile,
    load_profile,
    measure_profile,
    profile_batches,
)
from admin_nmt.initialization.warm_up import warm_up_advice

logger = logging.getLogger(__name__)


def _prepared(get_train_iterator: Callable) -> Callable:
    """ADMIN's omegas are measured on the first training batches, before the optimizer is built."""

    @wraps(get_train_iterator)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        epoch_itr = get_train_iterator(self, *args, **kwargs)
        prepare_model(self, epoch_itr)
        return epoch_itr

    return wrapped


def prepare_model(trainer: Any, epoch_itr: Any) -> None:
    """Set the omegas of the trainer's model if they are not set yet; same on every rank.

    Raises:
        UserError: the profile given does not fit, or the disk cannot hold one checkpoint.
        UsageError: `--ddp-backend fully_sharded`, which hides parameters from us.
        RuntimeError: the optimizer exists already, so that omegas would be lost.
    """
    from admin_nmt.models.admin_transformer import AdminTransformerModel

    model = trainer.get_model()
    if not isinstance(model, AdminTransformerModel) or model.omegas_ready:
        return
    if trainer.is_fsdp:
        raise UsageError("--ddp-backend fully_sharded is not supported with --init-type admin")
    if trainer._optimizer is not None:
        raise RuntimeError("omegas must be set before the optimizer is built")
    _require_space_for_checkpoint(trainer, model)
    profile: Profile | UserError | None = None
    start = time.perf_counter()
    if trainer.is_data_parallel_master:
        try:
            profile = _profile(trainer, model, epoch_itr)
        except UserError as error:
            # The other ranks wait for us: let them have the reason as well.
            profile = error
    profile = _broadcast(trainer, profile)
    if isinstance(profile, UserError):
        raise profile
    apply_profile(model, profile, str(profile.measured.get("file", "the profile")))
    logger.info("%s (%.1f s)", _describe(profile), time.perf_counter() - start)
    schedule = trainer.cfg.lr_scheduler
    advice = warm_up_advice(
        model.cfg.encoder.layers,
        trainer.cfg.optimization.lr[0],
        getattr(schedule, "warmup_updates", None),
        getattr(schedule, "warmup_init_lr", 0.0),
    )
    if advice and trainer.is_data_parallel_master:
        logger.warning(advice)


def _profile(trainer: Any, model: Any, epoch_itr: Any) -> Profile:
    """Read or measure the profile, on one rank."""
    if model.cfg.admin_profile:
        profile = load_profile(model.cfg.admin_profile)
        profile.measured["file"] = f"profile {model.cfg.admin_profile}"
        apply_profile(model, profile, profile.measured["file"])
        return profile
    seed = trainer.cfg.common.seed
    samples = profile_batches(
        epoch_itr,
        model.cfg.admin_profile_batches,
        seed,
        lambda batch: trainer._prepare_sample(batch)[0],
    )
    return measure_profile(model, samples, seed)


def _broadcast(trainer: Any, profile: Any) -> Any:
    """Rank 0's profile on every rank."""
    if trainer.data_parallel_world_size == 1:
        return profile
    from fairseq.distributed import utils as distributed_utils

    # As plain containers: messages are unpickled with weights_only.
    message: Any = None
    if isinstance(profile, Profile):
        rows = {name: list(vars(entry).values()) for name, entry in profile.sublayers.items()}
        message = {"sublayers": rows, "measured": profile.measured}
    elif profile is not None:
        message = {"error": str(profile)}
    message = distributed_utils.broadcast_object(
        message,
        src_rank=0,
        group=trainer.data_parallel_process_group,
        dist_device=trainer.device,
    )
    if "error" in message:
        return UserError(message["error"])
    return _profile_from(message)


def _profile_from(message: dict[str, Any]) -> Profile:
    from admin_nmt.initialization.profile import SublayerProfile

    sublayers = {name: SublayerProfile(*row) for name, row in message["sublayers"].items()}
    return Profile(sublayers, message["measured"])


def _require_space_for_checkpoint(trainer: Any, model: Any) -> None:
    """Refuse to start where not even one checkpoint fits (weights and two moments, float32)."""
    if not trainer.is_data_parallel_master or trainer.cfg.checkpoint.no_save:
        return
    copies = 1 if trainer.cfg.checkpoint.no_save_optimizer_state else 3
    num_bytes = 4 * copies * sum(parameter.numel() for parameter in model.parameters())
    require_free_space(trainer.cfg.checkpoint.save_dir, num_bytes)


def _describe(profile: Profile) -> str:
    """One log line: the range of omega in each stack, and where it is from."""

    def last(stack: str) -> str:
        omegas = [entry.omega for entry in profile.stack(stack).values()]
        return "a vector" if isinstance(omegas[-1], list) else f"{omegas[-1]:.3f}"

    measured = profile.measured
    origin = measured.get("file") or (
        f"measured on {measured['num_batches']} batch(es), "
        f"{measured['num_target_tokens']} target tokens, seed {measured['seed']}"
    )
    return (
        f"ADMIN omegas set: encoder 1 to {last('encoder')}, decoder 1 to {last('decoder')}; "
        f"{origin}"
    )


PATCHES = (Patch("fairseq.trainer:Trainer", "get_train_iterator", _prepared, Scope.OURS),)
