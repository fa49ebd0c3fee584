"""Small models and padded batches of any size, to compare with references in float64."""

from argparse import Namespace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tests.reference.transformer import positions

#: Embedding dimension and heads.
WIDTHS = st.sampled_from([(4, 1), (8, 2), (12, 3)])
#: Tokens of source and target of each sentence of a batch.
LENGTHS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3)


def sized(cfg: Namespace, layers: tuple[int, int], embed_dim: int, heads: int) -> Namespace:
    """A model's settings with these numbers of layers (encoder, decoder), width and heads."""
    cfg = Namespace(**vars(cfg))
    for side, number in zip(("encoder", "decoder"), layers, strict=True):
        setattr(cfg, f"{side}_layers", number)
        setattr(cfg, f"{side}_embed_dim", embed_dim)
        setattr(cfg, f"{side}_ffn_embed_dim", 2 * embed_dim)
        setattr(cfg, f"{side}_attention_heads", heads)
    cfg.decoder_input_dim = cfg.decoder_output_dim = embed_dim
    return cfg


def padded_batch(dictionary: Any, lengths: list[tuple[int, int]], seed: int) -> dict[str, Any]:
    """Random sentences of `lengths` (source, target), each with `</s>`: sources padded on the left,
    targets on the right, as fairseq does."""
    generator = torch.Generator().manual_seed(seed)
    pad, eos = dictionary.pad(), dictionary.eos()

    def words(number: int) -> Tensor:
        return torch.randint(dictionary.nspecial, len(dictionary), (number,), generator=generator)

    source = torch.full((len(lengths), max(s for s, _ in lengths)), pad)
    target = torch.full((len(lengths), max(t for _, t in lengths)), pad)
    for row, (s, t) in enumerate(lengths):
        source[row, -s:] = torch.cat([words(s - 1), torch.tensor([eos])])
        target[row, :t] = torch.cat([torch.tensor([eos]), words(t - 1)])
    return {
        "ntokens": sum(t for _, t in lengths),
        "net_input": {
            "src_tokens": source,
            "src_lengths": torch.tensor([s for s, _ in lengths]),
            "prev_output_tokens": target,
        },
    }


def convert(model: Any, dtype: torch.dtype, length: int = 32) -> Any:
    """The model in `dtype`, with the positions of the reference, which fairseq rounds to float32 first."""
    for stack in (model.encoder, model.decoder):
        embedding, pad = stack.embed_positions, stack.padding_idx
        dim = embedding.embedding_dim
        nothing = torch.zeros(pad + 1, dim, dtype=torch.float64)
        embedding.weights = torch.cat([nothing, positions(length, dim, pad)]).to(dtype)
    return model.to(dtype)
