"""How much of a deep encoder's output still tells positions apart.

    python benchmarks/encoder_collapse.py DATA --path CHECKPOINT [--path CHECKPOINT ...]

For each checkpoint the share of the variance of the encoder output that is left after the mean over
the positions of the same sentence is removed, on 100 validation sentences. Near 0, all positions of
a sentence look alike and the decoder has nothing to attend to ("rank collapse", Dong et al. 2021).
"""

import argparse
import logging
from typing import Any

import torch
from tabulate import tabulate

import admin_nmt  # noqa: F401


def position_share(model: Any, batch: dict[str, Any]) -> float:
    """Variance within sentences over the whole second moment of the encoder output."""
    model.eval()
    net_input = batch["net_input"]
    with torch.no_grad():
        output = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
    states = output["encoder_out"][0].transpose(0, 1)  # (B, S, D)
    real = ~output["encoder_padding_mask"][0]
    within = total = 0.0
    for sentence, mask in zip(states, real, strict=True):
        positions = sentence[mask]
        within += (positions - positions.mean(0)).square().mean().item()
        total += positions.square().mean().item()
    return within / total


def main() -> None:
    """One row per checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--path", action="append", required=True, metavar="CHECKPOINT")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    from fairseq import checkpoint_utils

    rows = []
    for path in args.path:
        models, _, task = checkpoint_utils.load_model_ensemble_and_task(
            [path], arg_overrides={"data": args.data}
        )
        task.load_dataset("valid")
        dataset = task.dataset("valid")
        batch = dataset.collater([dataset[i] for i in range(min(100, len(dataset)))])
        rows.append([path, position_share(models[0], batch)])
    print(tabulate(rows, headers=["checkpoint", "share that differs by position"]))


if __name__ == "__main__":
    main()
