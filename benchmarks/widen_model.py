"""A larger model of the same function, to measure speed and rounding without training one.

    admin-nmt fold m30k/average.pt --output folded.pt
    python benchmarks/widen_model.py folded.pt --layers 6-6 --output wide.pt

Takes a folded checkpoint (fairseq's `transformer`, post-LN) and doubles D and the number of heads;
FFN units become `--ffn` times as many. Features, heads and units are repeated, with weights rescaled so
that the function is unchanged (sinusoidal positions of another D differ a little). Layers added on top
of a stack pass their input on. Every matrix then gets noise (`--noise`, of its standard deviation), so
that no two rows are equal and rounding is that of a real model. Finally the model is given random
omegas between 1 and 2 and becomes an `admin_transformer` of the same function. Its translations say
something about rounding and nothing about learning.
"""

import argparse
from typing import Any

import torch
from common import parse
from torch import Tensor

from admin_nmt.checkpoints.reading import load_checkpoint_file
from admin_nmt.initialization.folding import fold_stack, stack_sublayers

State = dict[str, Tensor]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", metavar="CKPT", help="written by 'admin-nmt fold'")
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument("--layers", metavar="ENC-DEC", help="default: as many as there are")
    parser.add_argument(
        "--ffn", type=int, default=4, help="FFN units become so many times as many (default: 4)"
    )
    parser.add_argument("--noise", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    return parse(parser, tables=False, ffn=2)


def twice(x: Tensor, dim: int) -> Tensor:
    """Every feature two times, side by side: LayerNorm sees the same mean and variance."""
    return x.repeat_interleave(2, dim=dim)


def widen(name: str, value: Tensor, ffn: int) -> Tensor:
    """One parameter of a layer, for inputs whose features all stand there twice."""
    if "layer_norm" in name:
        return twice(value, 0)
    if any(part in name for part in ("q_proj", "k_proj", "v_proj")):
        value = torch.cat([value, value])  # heads repeated as blocks
        return twice(value, 1) / 2 if value.dim() == 2 else value
    if "fc1" in name:
        value = torch.cat([value] * ffn)
        return twice(value, 1) / 2 if value.dim() == 2 else value
    copies = 2 if "out_proj" in name else ffn  # fc2
    if value.dim() == 1:
        return twice(value, 0)
    return twice(torch.cat([value] * copies, dim=1) / copies, 0)


def add_layers(model: State, stack: str, before: int, after: int) -> None:
    """Put layers on top of `stack` that pass their input on: no branch, and LayerNorm of what is
    normalised already; the old top's gain and bias move to the new top."""
    top = f"{stack}.layers.{before - 1}."
    last = {name: value for name, value in model.items() if name.startswith(top)}
    for index in range(before, after):
        for name, value in last.items():
            new = name.replace(top, f"{stack}.layers.{index}.")
            if "out_proj" in name or "fc2" in name:
                model[new] = torch.zeros_like(value)
            elif "layer_norm" in name:
                model[new] = torch.full_like(value, float(name.endswith("weight")))
            else:
                model[new] = value.clone()
    if after > before:
        for kind in ("weight", "bias"):
            name = f"final_layer_norm.{kind}"
            model[f"{stack}.layers.{after - 1}.{name}"] = last[top + name]
            model[top + name] = torch.full_like(last[top + name], float(kind == "weight"))


def add_noise(model: State, amount: float, seed: int) -> None:
    """Noise on every matrix of the layers, in place."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.items():
        if ".layers." in name and value.dim() == 2:
            value += amount * value.std() * torch.randn(value.shape, generator=generator)


def with_omegas(model: State, config: dict[str, Any], seed: int) -> State:
    """The weights of an ADMIN model with random omegas that folds into `model`."""
    generator = torch.Generator().manual_seed(seed)
    for stack in ("encoder", "decoder"):
        sublayers = stack_sublayers(stack, config[f"{stack}_layers"])  # type: ignore[arg-type]
        size = config[f"{stack}_embed_dim"]
        omegas = [1 + torch.rand(size, generator=generator) for _ in sublayers[1:]]
        model = fold_stack(model, sublayers, [1.0, *(1 / omega for omega in omegas)])
        for sublayer, omega in zip(sublayers[1:], omegas, strict=True):
            model[f"{sublayer.residual}.omega"] = omega
    return model


def main() -> None:
    """Read, widen, write."""
    args = parse_arguments()
    state = load_checkpoint_file(args.checkpoint)
    config = state["cfg"]["model"]
    model: State = {}
    for name, value in state["model"].items():
        if ".layers." in name:
            model[name] = widen(name, value, args.ffn)
        elif "embed_tokens" in name or "output_projection" in name:
            # fairseq multiplies embeddings by the root of D.
            model[name] = twice(value, 1) / 2**0.5
        else:
            model[name] = value
    wanted = args.layers.split("-") if args.layers else ()
    for stack, count in zip(("encoder", "decoder"), wanted, strict=False):
        add_layers(model, stack, config[f"{stack}_layers"], int(count))
        config[f"{stack}_layers"] = int(count)
    for kind in ("weight", "bias"):  # the other root of 2, for logits that sum all features twice
        model[f"decoder.layers.{config['decoder_layers'] - 1}.final_layer_norm.{kind}"] /= 2**0.5
    add_noise(model, args.noise, args.seed)
    if config.get("share_all_embeddings"):
        shared = model["encoder.embed_tokens.weight"]
        model["decoder.embed_tokens.weight"] = model["decoder.output_projection.weight"] = shared
    for stack in ("encoder", "decoder"):
        for name, factor in (("embed_dim", 2), ("ffn_embed_dim", args.ffn), ("attention_heads", 2)):
            config[f"{stack}_{name}"] *= factor
    for name in ("decoder_input_dim", "decoder_output_dim"):
        config[name] = config["decoder_embed_dim"]
    model = with_omegas(model, config, args.seed)
    config |= dict.fromkeys(("arch", "_name"), "admin_transformer") | {"init_type": "admin"}
    torch.save({**state, "model": model}, args.output)


if __name__ == "__main__":
    main()
