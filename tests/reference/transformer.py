"""A post-LN encoder-decoder Transformer written out from the papers, in float64, with loops.

It reads the weights of a plain state dict with fairseq's names (`q_proj`, `k_proj`, `v_proj`) and
knows no dropout. The residual of sublayer i is `omega_i * x + f` (ADMIN); omegas are given as a
function of the sublayer's module name, and every residual connection is reported to a callback.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

State = dict[str, Tensor]
Omega = Callable[[str, Tensor, Tensor], Tensor]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


class Chain:
    """Scores carried between the layers of one kind of attention (RealFormer, arXiv 2012.11747).

    Attributes:
        total: (head, i, j) -> sum of the raw scores of the layers so far, masked places as well.
        layers: how many layers that is.
        mean: the softmax sees the sum divided by `layers`.
    """

    def __init__(self, mean: bool = True) -> None:
        self.total: dict[tuple[int, int, int], float] = {}
        self.layers = 0
        self.mean = mean


def attention(
    state: State,
    name: str,
    x: Tensor,
    memory: Tensor,
    heads: int,
    visible: Tensor,
    chain: Chain | None = None,
) -> Tensor:
    """One sentence: `x` (T, D), `memory` (S, D), `visible` (T, S) true where i may see j.

    Without a `chain` nothing is carried.
    """
    chain = chain or Chain()
    chain.layers += 1
    divisor = chain.layers if chain.mean else 1
    q, k, v = (
        linear(state, f"{name}.{part}_proj", source)
        for part, source in (("q", x), ("k", memory), ("v", memory))
    )
    size = q.shape[1] // heads
    context = torch.zeros_like(q)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(x.shape[0]):
            for j in range(memory.shape[0]):
                score = float(q[i, part] @ k[j, part]) / math.sqrt(size)
                chain.total[head, i, j] = chain.total.get((head, i, j), 0.0) + score
            seen = [j for j in range(memory.shape[0]) if visible[i, j]]
            scores = [chain.total[head, i, j] / divisor for j in seen]
            highest = max(scores)
            weights = [math.exp(score - highest) for score in scores]
            total = sum(weights)
            context[i, part] = sum(
                weight / total * v[j, part] for weight, j in zip(weights, seen, strict=True)
            )
    return linear(state, f"{name}.out_proj", context)


def positions(length: int, dim: int, padding_idx: int) -> Tensor:
    """Sinusoids of fairseq: sines then cosines, positions counted from `padding_idx + 1`."""
    half = dim // 2
    table = torch.zeros(length, dim, dtype=torch.float64)
    for t in range(length):
        for i in range(half):
            angle = (padding_idx + 1 + t) * math.exp(-i * math.log(10000) / (half - 1))
            table[t, i], table[t, half + i] = math.sin(angle), math.cos(angle)
    return table


def forward(
    state: State,
    source: list[int],
    target: list[int],
    heads: int,
    layers: tuple[int, int],
    padding_idx: int,
    residual: Omega,
    chains: dict[str, Chain] | None = None,
) -> Tensor:
    """Logits (T, V) of one sentence without padding; `residual(name, shortcut, branch)` adds.

    `chains`: for "encoder", "decoder" and "cross", the kinds of attention that carry scores.
    """
    chains = chains or {}
    state = {name: value.double() for name, value in state.items()}

    def embed(side: str, tokens: list[int]) -> Tensor:
        table = state[f"{side}.embed_tokens.weight"]
        return math.sqrt(table.shape[1]) * table[tokens] + positions(
            len(tokens), table.shape[1], padding_idx
        )

    def ffn(name: str, x: Tensor) -> Tensor:
        return linear(state, f"{name}.fc2", linear(state, f"{name}.fc1", x).clamp(min=0))

    x = embed("encoder", source)
    everything = torch.ones(len(source), len(source), dtype=torch.bool)
    for number in range(layers[0]):
        name = f"encoder.layers.{number}"
        branch = attention(
            state, f"{name}.self_attn", x, x, heads, everything, chains.get("encoder")
        )
        x = residual(f"{name}.self_attn_residual", x, branch)
        x = layer_norm(state, f"{name}.self_attn_layer_norm", x)
        x = residual(f"{name}.ffn_residual", x, ffn(name, x))
        x = layer_norm(state, f"{name}.final_layer_norm", x)
    memory = x

    x = embed("decoder", target)
    past = torch.ones(len(target), len(target), dtype=torch.bool).tril()
    cross = torch.ones(len(target), len(source), dtype=torch.bool)
    for number in range(layers[1]):
        name = f"decoder.layers.{number}"
        branch = attention(state, f"{name}.self_attn", x, x, heads, past, chains.get("decoder"))
        x = residual(f"{name}.self_attn_residual", x, branch)
        x = layer_norm(state, f"{name}.self_attn_layer_norm", x)
        branch = attention(
            state, f"{name}.encoder_attn", x, memory, heads, cross, chains.get("cross")
        )
        x = residual(f"{name}.encoder_attn_residual", x, branch)
        x = layer_norm(state, f"{name}.encoder_attn_layer_norm", x)
        x = residual(f"{name}.ffn_residual", x, ffn(name, x))
        x = layer_norm(state, f"{name}.final_layer_norm", x)
    return x @ state["decoder.output_projection.weight"].T
