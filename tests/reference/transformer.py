"""A post-LN encoder-decoder Transformer written out from the papers, in float64, with loops.

It reads the weights of a plain state dict with fairseq's names (`q_proj`, `k_proj`, `v_proj`), and
autograd follows it to them. The residual of sublayer i is `omega_i * x + f` (ADMIN): a callback adds,
and is told the sublayer's module name.
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
        total: (sentence, head) -> sum of the raw scores (T, S) of the layers so far, masked places as
            well.
        layers: how many layers that is.
        mean: the softmax sees the sum divided by `layers`.
    """

    def __init__(self, mean: bool = True) -> None:
        self.total: dict[tuple[int, int], Tensor] = {}
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
    """`x` (B, T, D), `memory` (B, S, D), `visible` (B, T, S) true where i may see j -> (B, T, D).

    Without a `chain` nothing is carried.
    """
    chain = chain or Chain()
    chain.layers += 1
    divisor = chain.layers if chain.mean else 1
    q, k, v = (
        linear(state, f"{name}.{part}_proj", source)
        for part, source in (("q", x), ("k", memory), ("v", memory))
    )
    size = q.shape[-1] // heads
    sentences = []
    for b in range(x.shape[0]):
        contexts = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = q[b, :, part] @ k[b, :, part].T / math.sqrt(size)
            chain.total[b, head] = scores = chain.total.get((b, head), 0.0) + scores
            rows = []
            for i in range(x.shape[1]):
                seen = visible[b, i]
                row = scores[i, seen] / divisor
                weights = (row - row.detach().max()).exp()
                rows.append((weights / weights.sum()) @ v[b, seen, part])
            contexts.append(torch.stack(rows))
        sentences.append(torch.cat(contexts, dim=-1))
    return linear(state, f"{name}.out_proj", torch.stack(sentences))


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
    """Logits (T, V) of one sentence without padding; see `forward_batch`."""
    tokens = torch.tensor([source]), torch.tensor([target])
    return forward_batch(state, *tokens, heads, layers, padding_idx, residual, chains)[0]


def forward_batch(
    state: State,
    source: Tensor,
    target: Tensor,
    heads: int,
    layers: tuple[int, int],
    padding_idx: int,
    residual: Omega,
    chains: dict[str, Chain] | None = None,
    dropout: Callable[[Tensor], Tensor] = lambda x: x,
    rounded: torch.dtype = torch.float64,
) -> Tensor:
    """Logits (B, T, V) of `source` (B, S) and `target` (B, T), with gradients to `state`.

    `residual(name, shortcut, branch)` adds. Padding is seen by nobody, but computed along. `chains`:
    for "encoder", "decoder" and "cross", the kinds of attention that carry scores. `dropout` acts on
    embeddings and on branches, `rounded` is the type that positions are kept in.
    """
    chains = chains or {}
    state = {name: value.double() for name, value in state.items()}

    def embed(side: str, tokens: Tensor) -> Tensor:
        table = state[f"{side}.embed_tokens.weight"]
        x = math.sqrt(table.shape[1]) * table[tokens]
        rows = []
        for embedded, row in zip(x, tokens, strict=True):
            words = row != padding_idx
            place = torch.zeros_like(embedded)
            place[words] = (
                positions(int(words.sum()), table.shape[1], padding_idx).to(rounded).double()
            )
            rows.append(dropout((embedded + place) * words[:, None]))
        return torch.stack(rows)

    def ffn(name: str, x: Tensor) -> Tensor:
        return linear(state, f"{name}.fc2", linear(state, f"{name}.fc1", x).clamp(min=0))

    def add(name: str, shortcut: Tensor, branch: Tensor) -> Tensor:
        return residual(name, shortcut, dropout(branch))

    x = embed("encoder", source)
    words = (source != padding_idx)[:, None, :]
    everything = words.expand(-1, source.shape[1], -1)
    for number in range(layers[0]):
        name = f"encoder.layers.{number}"
        branch = attention(
            state, f"{name}.self_attn", x, x, heads, everything, chains.get("encoder")
        )
        x = add(f"{name}.self_attn_residual", x, branch)
        x = layer_norm(state, f"{name}.self_attn_layer_norm", x)
        x = add(f"{name}.ffn_residual", x, ffn(name, x))
        x = layer_norm(state, f"{name}.final_layer_norm", x)
    memory = x

    x = embed("decoder", target)
    length = target.shape[1]
    past = torch.ones(length, length, dtype=torch.bool).tril() & (target != padding_idx)[:, None, :]
    cross = words.expand(-1, length, -1)
    for number in range(layers[1]):
        name = f"decoder.layers.{number}"
        branch = attention(state, f"{name}.self_attn", x, x, heads, past, chains.get("decoder"))
        x = add(f"{name}.self_attn_residual", x, branch)
        x = layer_norm(state, f"{name}.self_attn_layer_norm", x)
        branch = attention(
            state, f"{name}.encoder_attn", x, memory, heads, cross, chains.get("cross")
        )
        x = add(f"{name}.encoder_attn_residual", x, branch)
        x = layer_norm(state, f"{name}.encoder_attn_layer_norm", x)
        x = add(f"{name}.ffn_residual", x, ffn(name, x))
        x = layer_norm(state, f"{name}.final_layer_norm", x)
    return x @ state["decoder.output_projection.weight"].T
