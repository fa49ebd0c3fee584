"""The layers of Transformer-Clinic, deepnmt and admin-torch's example, under their own names.

Written out from their formulas in float64, for one sentence without padding. Of sublayer i the
official code computes

    adaptive   LN(f(x) + x * ratio)            ratio (D,), trained, the first one too
    deepnet    LN(f(x) + x * constant)
    rezero     x + weight * f(x)               one weight per layer
    admin      LN(f(x) + x * omega)            admin-torch, omega (1,) or (D,)
    default    LN(f(x) + x), or x + f(LN(x))

with the projections of attention in one matrix (`in_proj_weight`, `in_proj_bias`), or in three
matrices and one bias (`q_proj_weight` ..., deepnet and unequal widths).
"""

import math
from typing import Any

import torch
from torch import Tensor

from tests.reference.transformer import State, layer_norm, linear, positions

#: Sublayer -> (its LayerNorm, its omega in Transformer-Clinic's encoder and decoder).
NORMS = {"self": "self_attn", "cross": "encoder_attn", "ffn": "final"}
RATIOS = {
    "encoder": {"self": "attention_ratio_change", "ffn": "fc_ratio_change"},
    "decoder": {
        "self": "self_ratio_change",
        "cross": "encoder_ratio_change",
        "ffn": "fc_ratio_change",
    },
}


def attention(
    state: State, name: str, x: Tensor, memory: Tensor, heads: int, seen: Tensor
) -> Tensor:
    """`x` (T, D), `memory` (S, D'), `seen` (T, S)."""
    if f"{name}.in_proj_weight" in state:
        weights = state[f"{name}.in_proj_weight"].chunk(3)
    else:
        weights = tuple(state[f"{name}.{part}_proj_weight"] for part in "qkv")
    biases = state[f"{name}.in_proj_bias"].chunk(3)
    q, k, v = (
        source @ weight.T + bias
        for source, weight, bias in zip((x, memory, memory), weights, biases, strict=True)
    )
    size = q.shape[1] // heads
    contexts = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[:, part] @ k[:, part].T / math.sqrt(size)
        contexts.append(scores.masked_fill(~seen, -math.inf).softmax(-1) @ v[:, part])
    return linear(state, f"{name}.out_proj", torch.cat(contexts, 1))


class _Stack:
    """Adds sublayers the way the settings say."""

    def __init__(self, state: State, settings: dict[str, Any], stack: str) -> None:
        self.state, self.stack = state, stack
        self.init_type = settings.get("init_type") or settings.get("admin_init_type", "default")
        self.pre = settings.get(f"{stack}_normalize_before", False)
        n, m = settings["encoder_layers"], settings["decoder_layers"]
        self.constant = 0.81 * (n**4 * m) ** (1 / 16) if stack == "encoder" else (3 * m) ** 0.25

    def sublayer(self, layer: str, kind: str, x: Tensor, branch: Any) -> Tensor:
        norm = f"{layer}.{NORMS[kind]}_layer_norm"
        if self.init_type == "rezero":
            return x + self.state[f"{layer}.rezero_weight"] * branch(x)
        if self.pre:
            return x + branch(layer_norm(self.state, norm, x))
        return layer_norm(self.state, norm, branch(x) + x * self.factor(layer, kind))

    def factor(self, layer: str, kind: str) -> Tensor | float:
        omega = f"{layer}.residual_{kind}.omega".replace("self", "attn").replace(
            "cross", "cross_attn"
        )
        if omega in self.state:
            return self.state[omega]
        if "adaptive" in self.init_type:
            return self.state[f"{layer}.{RATIOS[self.stack][kind]}"]
        return self.constant if self.init_type == "deepnet" else 1.0


def forward(state: State, settings: dict[str, Any], source: list[int], target: list[int]) -> Tensor:
    """Logits (T, V)."""
    state = {name: value.double() for name, value in state.items()}

    def embed(side: str, tokens: list[int]) -> Tensor:
        table = state[f"{side}.embed_tokens.weight"]
        width = table.shape[1]
        x = math.sqrt(width) * table[tokens]
        if settings.get(f"{side}_learned_pos"):
            x = x + state[f"{side}.embed_positions.weight"][2 : 2 + len(tokens)]
        else:
            x = x + positions(len(tokens), width, 1)
        if settings.get("layernorm_embedding"):
            x = layer_norm(state, f"{side}.layernorm_embedding", x)
        return x

    def ffn(layer: str) -> Any:
        return lambda x: linear(
            state, f"{layer}.fc2", linear(state, f"{layer}.fc1", x).clamp(min=0)
        )

    heads = settings["encoder_attention_heads"]
    encoder, decoder = (_Stack(state, settings, stack) for stack in ("encoder", "decoder"))
    x = embed("encoder", source)
    everything = torch.ones(len(source), len(source), dtype=torch.bool)
    for number in range(settings["encoder_layers"]):
        layer = f"encoder.layers.{number}"
        x = encoder.sublayer(
            layer, "self", x,
            lambda y, n=f"{layer}.self_attn": attention(state, n, y, y, heads, everything),
        )  # fmt: skip
        x = encoder.sublayer(layer, "ffn", x, ffn(layer))
    memory = layer_norm(state, "encoder.layer_norm", x) if encoder.pre else x

    heads = settings["decoder_attention_heads"]
    x = embed("decoder", target)
    past = torch.ones(len(target), len(target), dtype=torch.bool).tril()
    across = torch.ones(len(target), len(source), dtype=torch.bool)
    for number in range(settings["decoder_layers"]):
        layer = f"decoder.layers.{number}"
        x = decoder.sublayer(
            layer, "self", x,
            lambda y, n=f"{layer}.self_attn": attention(state, n, y, y, heads, past),
        )  # fmt: skip
        x = decoder.sublayer(
            layer, "cross", x,
            lambda y, n=f"{layer}.encoder_attn": attention(state, n, y, memory, heads, across),
        )  # fmt: skip
        x = decoder.sublayer(layer, "ffn", x, ffn(layer))
    if decoder.pre:
        x = layer_norm(state, "decoder.layer_norm", x)
    output = state.get("decoder.embed_out", state["decoder.embed_tokens.weight"])
    return x @ output.T


def random_state(settings: dict[str, Any], num_words: int, seed: int = 1) -> State:
    """A state dict of the official code with random numbers everywhere.

    `settings["admin_torch"]`: "number" or "vector" puts omegas of admin-torch into every layer.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, around: float = 0.0, scale: float = 0.3) -> Tensor:
        return around + scale * torch.randn(shape, generator=generator)

    init_type = settings.get("init_type") or settings.get("admin_init_type", "default")
    state: State = {}
    for stack in ("encoder", "decoder"):
        width = settings[f"{stack}_embed_dim"]
        inner = settings[f"{stack}_ffn_embed_dim"]
        memory = settings["encoder_embed_dim"]
        pre = settings.get(f"{stack}_normalize_before", False)

        def norm(name: str, width: int = width) -> None:
            state[f"{name}.weight"] = normal(width, around=1.0)
            state[f"{name}.bias"] = normal(width)

        table = normal(num_words, width)
        table[1] = 0
        if stack == "decoder" and settings.get("share_all_embeddings"):
            table = state["encoder.embed_tokens.weight"]
        state[f"{stack}.embed_tokens.weight"] = table
        if settings.get(f"{stack}_learned_pos"):
            side = "source" if stack == "encoder" else "target"
            state[f"{stack}.embed_positions.weight"] = normal(
                settings[f"max_{side}_positions"] + 2, width
            )
        else:
            state[f"{stack}.embed_positions._float_tensor"] = torch.ones(1)
        state[f"{stack}.version"] = torch.tensor([3.0])
        if settings.get("layernorm_embedding"):
            norm(f"{stack}.layernorm_embedding")
        for number in range(settings[f"{stack}_layers"]):
            layer = f"{stack}.layers.{number}"
            kinds = list(RATIOS[stack])
            for kind in kinds:
                if init_type != "rezero":
                    norm(f"{layer}.{NORMS[kind]}_layer_norm")
                if "adaptive" in init_type:
                    ratio = normal(width, around=1.5, scale=0.4)
                    state[f"{layer}.{RATIOS[stack][kind]}"] = ratio
                if kind == "ffn":
                    for name, shape in (("fc1", (inner, width)), ("fc2", (width, inner))):
                        state[f"{layer}.{name}.weight"] = normal(*shape)
                        state[f"{layer}.{name}.bias"] = normal(shape[0])
                    continue
                name = f"{layer}.{NORMS[kind]}"
                kv = memory if kind == "cross" else width
                if init_type == "deepnet" or kv != width:
                    for part, size in (("q", width), ("k", kv), ("v", kv)):
                        state[f"{name}.{part}_proj_weight"] = normal(width, size)
                else:
                    state[f"{name}.in_proj_weight"] = normal(3 * width, width)
                state[f"{name}.in_proj_bias"] = normal(3 * width)
                state[f"{name}.out_proj.weight"] = normal(width, width)
                state[f"{name}.out_proj.bias"] = normal(width)
            if init_type == "rezero":
                state[f"{layer}.rezero_weight"] = normal(1)
            for kind, called in (("self", "attn"), ("cross", "cross_attn"), ("ffn", "ffn")):
                if kind in kinds and settings.get("admin_torch"):
                    state[f"{layer}.residual_{called}.omega"] = (
                        torch.tensor([settings[f"{stack}_omega"]])
                        if settings["admin_torch"] == "number"
                        else normal(width, around=1.5, scale=0.4)
                    )
        if pre:
            norm(f"{stack}.layer_norm")
    if not settings.get("share_all_embeddings") and not settings.get(
        "share_decoder_input_output_embed"
    ):
        state["decoder.embed_out"] = normal(num_words, settings["decoder_embed_dim"])
    return state
