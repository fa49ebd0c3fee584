"""A checkpoint of `admin_transformer` as one of fairseq's own `transformer`.

The result holds tensors and plain containers only, the configuration as a dictionary (as
`fairseq-hydra-train` writes it), so that PyTorch's safe reader takes it with nothing allowed
beforehand: a stock fairseq loads it on any version of PyTorch.

Optimizer state is dropped: Adam's moments belong to the parameters before folding.
"""

import copy
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from admin_nmt.checkpoints.checkpoint import TRANSFORMERS, Checkpoint
from admin_nmt.checkpoints.stock import OPTIMIZER_DROPPED, STOCK_CRITERION, stock_state
from admin_nmt.checkpoints.tensors import half_type, widened
from admin_nmt.errors import UserError
from admin_nmt.initialization.folding import (
    Factor,
    Sublayer,
    fold_stack,
    split_all_projections,
    stack_sublayers,
)
from admin_nmt.initialization.registry import SCHEMES
from admin_nmt.initialization.scheme import Depth, Stack
from admin_nmt.models.settings import model_settings
from admin_nmt.modules.residual import Residual, ReZeroResidual, ScaledResidual
from admin_nmt.option_names import plain_value

#: Ends of the names of parameters (`encoder.version` is none).
_WEIGHTS = ("weight", "bias")
#: Largest number of float16.
HALF_MAX = 65504.0


@dataclass(frozen=True)
class FoldReport:
    """What folding met.

    Attributes:
        init_type: scheme of the model that was folded.
        num_folded: connections whose factor was not 1.
        smallest_factor, largest_factor: over all components, in absolute value.
        largest_weight: absolute value, over the folded model.
        lost_in_half: weights that are not zero but would be in float16.
        converted_from: 16-bit type of the checkpoint, None if it was float32.
        epsilon_factors: stack -> constant of its first connection, folded up to LayerNorm's epsilon.
        dropped_optimizer: there was optimizer state.
    """

    init_type: str
    num_folded: int
    smallest_factor: float
    largest_factor: float
    largest_weight: float
    lost_in_half: int
    converted_from: str | None
    epsilon_factors: dict[str, float]
    dropped_optimizer: bool

    @property
    def fits_half(self) -> bool:
        """Whether all folded weights lie in float16's range."""
        return self.largest_weight <= HALF_MAX

    def lines(self) -> list[str]:
        """Human-readable summary, one fact per line."""
        found = [
            f"folded {self.num_folded} residual connections ({self.init_type}), omega from "
            f"{self.smallest_factor:.4g} to {self.largest_factor:.4g}"
        ]
        for stack, constant in self.epsilon_factors.items():
            found.append(
                f"first connection of the {stack}: factor {constant:.4g} folded up to LayerNorm's "
                "epsilon, a relative change of at most 5e-6 / (variance of its input)"
            )
        if self.converted_from:
            found.append(f"the checkpoint was {self.converted_from}; folded and saved in float32")
        fits = "float16 holds it" if self.fits_half else "float16 does NOT hold it: keep float32"
        found.append(
            f"largest weight {self.largest_weight:.4g} ({fits}, up to {HALF_MAX:.0f}); "
            f"{self.lost_in_half} small weights would become 0 in float16"
        )
        if self.dropped_optimizer:
            found.append(OPTIMIZER_DROPPED)
        return found


def check_foldable(path: str | Path, settings: Namespace) -> None:
    """Refuse what a plain Transformer cannot compute.

    Raises:
        UserError: with the option and the reason.
    """
    from admin_nmt.models.config import our_options

    for option in our_options():
        value = getattr(settings, option.name)
        reason = option.metadata["folds"]
        if reason is not True and value and value not in (plain_value(option.default), "none"):
            raise UserError(
                f"checkpoint {path} cannot be folded: it was trained with "
                f"--{option.name.replace('_', '-')} {value}, and {reason}"
            )
    reason = SCHEMES[settings.init_type].scheme(Depth(1, 1), False).folds
    if reason is not True:
        raise UserError(
            f"checkpoint {path} cannot be folded: --init-type {settings.init_type} {reason}"
        )


def fold(checkpoint: Checkpoint) -> tuple[Checkpoint, FoldReport]:
    """Reparameterise an `admin_transformer` into fairseq's `transformer`.

    Returns:
        the folded checkpoint in float32, and what there is to say about it.

    Raises:
        UserError: it cannot be folded, with the reason.
    """
    path = checkpoint.path
    if checkpoint.require_family(TRANSFORMERS, "be folded or exported") != "admin_transformer":
        raise UserError(
            f"checkpoint {path} is one of fairseq's own {checkpoint.architecture}: nothing to fold"
        )
    settings = model_settings(checkpoint)
    check_foldable(path, settings)
    model, factors = fold_model(widened(checkpoint.weights), settings)
    for name in [name for name in model if name.endswith((".omega", ".alpha"))]:
        raise UserError(f"checkpoint {path} cannot be folded: unexpected parameter {name}")
    magnitudes = [torch.as_tensor(f).abs() for values in factors.values() for f in values]
    weights = [value for name, value in model.items() if name.endswith(_WEIGHTS)]
    report = FoldReport(
        init_type=str(settings.init_type),
        num_folded=sum(bool((magnitude != 1).any()) for magnitude in magnitudes),
        smallest_factor=min(float(magnitude.min()) for magnitude in magnitudes),
        largest_factor=max(float(magnitude.max()) for magnitude in magnitudes),
        largest_weight=max(float(weight.abs().max()) for weight in weights),
        lost_in_half=sum(int(((w != 0) & (w.half() == 0)).sum()) for w in weights),
        converted_from=half_type(checkpoint.weights),
        epsilon_factors=_epsilon_factors(factors, settings),
        dropped_optimizer=checkpoint.state.get("last_optimizer_state") is not None,
    )
    return Checkpoint(path, plain_state(checkpoint.state, settings, model)), report


def fold_checkpoint(path: str | Path) -> tuple[dict[str, Any], FoldReport]:
    """`fold` for a file; returns the folded checkpoint as a dictionary, ready for `torch.save`.

    Raises:
        UserError: no such checkpoint, or one that cannot be folded, with the reason.
    """
    folded, report = fold(Checkpoint.open(path))
    return dict(folded.state), report


def as_plain(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], Namespace]:
    """Weights, in float32, and settings as of fairseq's `transformer`, folded if the checkpoint is ours.

    Raises:
        UserError: another architecture, or a model that cannot be folded.
    """
    if checkpoint.require_family(TRANSFORMERS, "be folded or exported") == "admin_transformer":
        folded, _ = fold(checkpoint)
        return folded.weights, Namespace(**folded.state["cfg"]["model"])
    return widened(checkpoint.weights), Namespace(**plain_settings(model_settings(checkpoint)))


def fold_model(
    model: dict[str, Tensor], settings: Namespace
) -> tuple[dict[str, Tensor], dict[str, list[Factor]]]:
    """Fold both stacks of a state dict of `admin_transformer`.

    Args:
        model: state dict, in any floating-point precision; not changed.
        settings: from `model_settings`.

    Returns:
        the state dict of fairseq's `transformer`, and the factors of each stack.

    Raises:
        UserError: an omega is missing or cannot be divided by.
    """
    result = split_all_projections(model)
    fill_up_heads(result, settings)
    factors: dict[str, list[Factor]] = {}
    stacks: tuple[Stack, Stack] = ("encoder", "decoder")
    for stack in stacks:
        cross_attention = not settings.no_cross_attention
        depth = getattr(settings, f"{stack}_layers")
        sublayers = stack_sublayers(stack, depth, cross_attention)
        factors[stack] = _factors(result, settings, stack, sublayers)
        norm = f"{stack}.layernorm_embedding" if settings.layernorm_embedding else None
        result = fold_stack(result, sublayers, factors[stack], norm)
    return result, factors


def fill_up_heads(model: dict[str, Tensor], settings: Namespace) -> None:
    """Put heads of zeros in place of removed and masked ones, in place: outputs stay the same.

    A plain Transformer has the same number of heads in every layer. One whose values, and whose
    part of the output projection, are zero adds nothing, whatever it attends to.

    Raises:
        UserError: a module has fewer heads than the settings say.
    """
    from admin_nmt.models.config import to_config
    from admin_nmt.models.heads import attention_name
    from admin_nmt.modules.attention_kinds import ATTENTION_KINDS

    cfg = to_config(settings)
    for kind, counts in cfg.layout.items():
        stack = ATTENTION_KINDS[kind].stack
        width = getattr(settings, f"{stack}_embed_dim")
        size = width // getattr(settings, f"{stack}_attention_heads")
        memory = settings.encoder_embed_dim if kind == "A" else width
        for index, count in enumerate(counts):
            name = attention_name(kind, index)
            if count:
                _require_heads(model, name, count * size)
            inputs = {"q": width, "k": memory, "v": memory}
            for part, input_dim in inputs.items():
                _fill_up(model, f"{name}.{part}_proj.weight", (width, input_dim))
                _fill_up(model, f"{name}.{part}_proj.bias", (width,))
            output = f"{name}.out_proj.weight"
            _fill_up(model, output, (width, width))
            for head in cfg.masked_heads:
                if (head.kind, head.layer) == (kind, index + 1):
                    model[output] = model[output].clone()
                    model[output][:, (head.head - 1) * size : head.head * size] = 0


def _require_heads(model: dict[str, Tensor], name: str, inner_dim: int) -> None:
    for part in "qkv":
        if len(model.get(f"{name}.{part}_proj.weight", ())) != inner_dim:
            raise UserError(
                f"cannot fold: heads of {name} were removed, but the checkpoint's heads_per_layer "
                "does not say so"
            )


def _fill_up(model: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> None:
    """Zeros behind what there is under `name`, or zeros alone, up to `shape`."""
    there = model.get(name)
    if there is None or there.shape != shape:
        like = next(value for value in model.values() if value.is_floating_point())
        model[name] = like.new_zeros(shape)
        if there is not None:
            model[name][tuple(slice(size) for size in there.shape)] = there


def _factors(
    model: dict[str, Tensor], settings: Namespace, stack: Stack, sublayers: list[Sublayer]
) -> list[Factor]:
    """The factor on each shortcut: from the state dict, or the constant of the scheme."""
    depth = Depth(
        settings.encoder_layers, settings.decoder_layers, 2 if settings.no_cross_attention else 3
    )
    scheme = SCHEMES[settings.init_type].scheme(depth, False)
    factors: list[Factor] = []
    for position, sublayer in enumerate(sublayers):
        residual: Residual = scheme.residual(stack, position, 1)
        assert not isinstance(residual, ReZeroResidual), "refused by check_foldable"
        if isinstance(residual, ScaledResidual):
            name = f"{sublayer.residual}.omega"
            if name not in model:
                raise UserError(
                    f"cannot fold: {name} is missing from the checkpoint, although it was trained "
                    f"with --init-type {settings.init_type}"
                )
            factors.append(model[name])
        else:
            assert residual.constant is not None
            factors.append(residual.constant)
    return factors


def _epsilon_factors(factors: dict[str, list[Factor]], settings: Namespace) -> dict[str, float]:
    if settings.layernorm_embedding:
        return {}
    first = {stack: float(values[0]) for stack, values in factors.items()}
    return {stack: constant for stack, constant in first.items() if constant != 1}


def plain_state(
    state: Mapping[str, Any], settings: Namespace, model: dict[str, Tensor]
) -> dict[str, Any]:
    """The content of a checkpoint of fairseq's `transformer` with the run's other settings.

    Args:
        state: of the checkpoint that the model is from.
        settings: of the model.
        model: state dict in fairseq's names.

    Raises:
        UserError: the checkpoint has no configuration.
    """
    if state.get("cfg") is None:
        raise UserError("the checkpoint has no configuration (it is older than fairseq 0.10)")
    config = {name: _as_dict(section) for name, section in state["cfg"].items()}
    config["model"] = plain_settings(settings)
    _forget_run(config)
    num_updates = (state.get("optimizer_history") or [{}])[-1].get("num_updates", 0)
    return stock_state(config, model, num_updates, state.get("task_state"))


def _as_dict(section: Any) -> Any:
    """fairseq keeps sections of models and tasks without a dataclass as namespaces."""
    return copy.deepcopy(vars(section) if isinstance(section, Namespace) else section)


def plain_settings(settings: Namespace) -> dict[str, Any]:
    """Settings of fairseq's `transformer` with the same sizes."""
    from admin_nmt.models.config import our_options

    ours = {option.name for option in our_options()}
    plain = {name: value for name, value in vars(settings).items() if name not in ours}
    # Where initial embeddings came from: fairseq would read the files again when it loads the model.
    plain["encoder_embed_path"] = plain["decoder_embed_path"] = None
    return plain | {"_name": "transformer", "arch": "transformer"}


def _forget_run(config: dict[str, Any]) -> None:
    """Drop, in place, what a stock fairseq does not know and where this run kept its files."""
    from fairseq import criterions, optim, tasks
    from fairseq.optim import lr_scheduler

    registries = {
        "task": tasks.TASK_REGISTRY,
        "criterion": criterions.CRITERION_REGISTRY,
        "optimizer": optim.OPTIMIZER_REGISTRY,
        "lr_scheduler": lr_scheduler.LR_SCHEDULER_REGISTRY,
    }
    for group, registry in registries.items():
        chosen = registry.get((config.get(group) or {}).get("_name"))
        if chosen is None or chosen.__module__.startswith("admin_nmt."):
            given, stock = config.get(group) or {}, _STOCK.get(group)
            kept = {name: given[name] for name in _TASK_SETTINGS if name in given}
            config[group] = (stock | kept if group == "task" else stock) if stock else None
    for group, names in _OF_THE_RUN.items():
        section = config.get(group)
        if isinstance(section, dict):
            section |= {name: value for name, value in names.items() if name in section}


#: Settings that another task of translation has as well.
_TASK_SETTINGS = ("data", "source_lang", "target_lang")
#: What replaces our tasks and criterions; None where a plain model needs none.
_STOCK: dict[str, dict[str, Any]] = {
    "task": {"_name": "translation"},
    "criterion": STOCK_CRITERION,
}
_OF_THE_RUN: dict[str, dict[str, Any]] = {
    "common": dict.fromkeys(
        ("user_dir", "log_file", "tensorboard_logdir", "wandb_project", "aim_repo", "aim_run_hash")
    ),
    "checkpoint": {
        "save_dir": "checkpoints",
        "restore_file": "checkpoint_last.pt",
        "finetune_from_model": None,
    },
    "common_eval": {"path": None, "results_path": None},
}
