"""Models with random weights, and sentences for them."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from admin_nmt.modules.multihead_attention import split_projections


def on_device(batch: dict[str, Any], device: str) -> dict[str, Any]:
    """The batch with all of its tensors there."""
    from fairseq import utils

    moved: dict[str, Any] = utils.apply_to_sample(lambda tensor: tensor.to(device), batch)
    return moved


def stock_state(model: Any) -> dict[str, Tensor]:
    """The state dict under fairseq's names of projections, omegas left out."""
    state = {k: v.clone() for k, v in model.state_dict().items() if not k.endswith(".omega")}
    for side, attentions in (
        ("encoder", ["self_attn"]),
        ("decoder", ["self_attn", "encoder_attn"]),
    ):
        for number in range(len(getattr(model, side).layers)):
            for name in attentions:
                split_projections(
                    state, f"{side}.layers.{number}.{name}", self_attention=name == "self_attn"
                )
    return state


def random_omegas(model: Any, seed: int) -> dict[str, Tensor]:
    """Give every vector omega random components, small and negative ones among them."""
    generator = torch.Generator().manual_seed(seed)
    omegas = {}
    for name, residual in model.residuals():
        if hasattr(residual, "omega"):
            residual.set_omega(torch.randn(residual.omega.shape, generator=generator))
            omegas[name] = residual.omega.detach().double()
    return omegas


def randomise(model: Any, seed: int, also: tuple[str, ...] = ()) -> torch.Generator:
    """Random biases and LayerNorms: at their initial values they would hide mistakes.

    Args:
        model: changed.
        seed: of the numbers that are added, of standard deviation 0.3.
        also: ends of the names of other parameters that get some.

    Returns:
        The generator, for more.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", *also)) or "layer_norm" in name or "layernorm" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return generator


def omegas(model: Any) -> Iterator[Tensor]:
    """The vectors omega of a model, in forward order."""
    for _, residual in model.residuals():
        if hasattr(residual, "omega"):
            yield residual.omega


def spread_omegas(model: Any, generator: torch.Generator, half_range: float = 1.5) -> None:
    """Random omegas: half of the components are normal, half between 10 ** -half_range and
    10 ** half_range in absolute value, of either sign."""

    def normal(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        for omega in omegas(model):
            exponents = half_range * (2 * torch.rand(omega.shape, generator=generator) - 1)
            spread = 10**exponents * normal(omega.shape).sign()
            omega.copy_(torch.where(normal(omega.shape) > 0, spread, normal(omega.shape)))


def population_variance(x: Tensor) -> float:
    values = x.flatten().tolist()
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / len(values)


def one_sentence(batch: dict[str, Any], row: int, pad: int) -> dict[str, Any]:
    """A batch of one sentence without padding."""
    net_input = batch["net_input"]
    source = net_input["src_tokens"][row]
    target = net_input["prev_output_tokens"][row]
    return {
        "ntokens": int((target != pad).sum()),
        "net_input": {
            "src_tokens": source[source != pad][None],
            "src_lengths": (source != pad).sum()[None],
            "prev_output_tokens": target[target != pad][None],
        },
    }


def trainer_state(model: Any, cfg: Any, **entries: Any) -> dict[str, Any]:
    """What fairseq's trainer writes for a model configured by `cfg`; `entries` win."""
    from omegaconf import OmegaConf

    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}}
    return {
        "args": None,
        "cfg": OmegaConf.to_container(cfg, resolve=True, enum_to_str=True),
        "model": model.state_dict(),
        "optimizer_history": [history | {"num_updates": 7}],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}, "val_loss": None},
    } | entries
