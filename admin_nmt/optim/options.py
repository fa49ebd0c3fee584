"""Options that several optimizers share."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from admin_nmt.errors import UsageError


def parse_betas(value: Any) -> tuple[float, float]:
    """The two betas from a string such as `(0.9, 0.98)`, a sequence, or a YAML list.

    Raises:
        UsageError: they are not two numbers in [0, 1).
    """
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    try:
        parts = value.strip("()[] ").split(",") if isinstance(value, str) else value
        beta1, beta2 = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise UsageError(f"--adam-betas {value}: give two numbers such as '(0.9, 0.98)'") from None
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise UsageError(f"--adam-betas {value}: both must be at least 0 and below 1")
    return beta1, beta2


def adam_arguments(cfg: Any) -> dict[str, Any]:
    """Constructor arguments of PyTorch's Adam family from fairseq's `--lr`, `--adam-*` options.

    Raises:
        UsageError: the betas make no sense.
    """
    return {
        "lr": cfg.lr[0] if isinstance(cfg.lr, Sequence) else cfg.lr,
        "betas": parse_betas(cfg.adam_betas),
        "eps": cfg.adam_eps,
        "weight_decay": cfg.weight_decay,
    }
