"""What a study looks at inside a checkpoint: positions, gradients, omegas.

    python -m studies.probe DATA CHECKPOINT [CHECKPOINT ...]

For each checkpoint: the share of the encoder output that differs by position (on 100 validation
sentences), the gradient's norm in every layer (first training batch, dropout on, per token), and
mean and standard deviation of every omega.
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from admin_nmt.analysis.collapse import share_on

#: Of the training batch.
MAX_TOKENS = 1000


def gradient_norms(model: nn.Module, criterion: nn.Module, batch: Mapping[str, Any]) -> dict:
    """Norm of the gradient of the loss per token, `encoder.0` (the first layer) and so on."""
    model.train()
    torch.manual_seed(1)
    loss, sample_size, _ = criterion(model, batch)
    (loss / sample_size).backward()
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        stack, layers, number, *_ = [*name.split("."), "", "", ""]
        if layers == "layers" and parameter.grad is not None:
            place = f"{stack}.{number}"
            squares[place] = squares.get(place, 0.0) + parameter.grad.double().square().sum().item()
    model.zero_grad()
    return {place: square**0.5 for place, square in squares.items()}


def omegas(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the components of each omega, by sublayer."""
    return {
        name.removesuffix(".omega"): (tensor.mean().item(), tensor.std(correction=0).item())
        for name, tensor in model.state_dict().items()
        if name.endswith(".omega")
    }


def probe(data: str | Path, checkpoint: str | Path) -> dict[str, Any]:
    """All three for one checkpoint."""
    from fairseq import checkpoint_utils

    models, cfg, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data)}
    )
    model: Any = models[0].float()
    task.load_dataset("valid")
    task.load_dataset("train")
    iterator = task.get_batch_iterator(task.dataset("train"), max_tokens=MAX_TOKENS, seed=1)
    batch = next(iter(iterator.next_epoch_itr(shuffle=True)))
    criterion = task.build_criterion(cfg.criterion)
    return {
        "position_share": share_on(model, task, "valid"),
        "gradient_norms": gradient_norms(model, criterion, batch),
        "omegas": omegas(model),
    }


def main() -> None:
    """One JSON line per checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", type=Path)
    parser.add_argument("checkpoints", metavar="CHECKPOINT", nargs="+", type=Path)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    import admin_nmt  # noqa: F401  (registers the models)

    for checkpoint in args.checkpoints:
        found = {"checkpoint": str(checkpoint), **probe(args.data, checkpoint)}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
