"""Checkpoints as models in memory, without data: of a vocabulary only its size matters here."""

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def build_model(settings: Namespace, model: dict[str, Tensor], name: str) -> Any:
    """A model in evaluation mode and float32.

    Args:
        settings: from `models.settings.model_settings` or `export.plain_transformer.plain_settings`.
        model: its state dict.
        name: registered model, `admin_transformer` or `transformer`.
    """
    from fairseq.data import Dictionary
    from fairseq.models import MODEL_REGISTRY

    def dictionary(size: int) -> Any:
        result = Dictionary()
        for number in range(size - len(result)):
            result.add_symbol(f"word{number}")
        return result

    sizes = [model[f"{side}.embed_tokens.weight"].shape[0] for side in ("encoder", "decoder")]
    source = dictionary(sizes[0])
    target = source if settings.share_all_embeddings else dictionary(sizes[1])
    task = SimpleNamespace(source_dictionary=source, target_dictionary=target)
    options = vars(settings) | {"encoder_embed_path": None, "decoder_embed_path": None}
    built: Any = MODEL_REGISTRY[name].build_model(Namespace(**options), task)
    # fairseq renames entries of the dictionary that it is given.
    built.load_state_dict(dict(model), strict=True)
    return built.float().eval()


def random_batch(settings: Namespace, model: dict[str, Tensor], seed: int = 1) -> dict[str, Tensor]:
    """Net input of eight sentences of random words, of lengths 2 to 24, padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    num_words = [model[f"{side}.embed_tokens.weight"].shape[0] for side in ("encoder", "decoder")]
    # Learned positions have no more; the end of a sentence takes one of them.
    limit = min(settings.max_source_positions, settings.max_target_positions)
    lengths = torch.linspace(24, 2, 8).long().clamp(max=limit)
    longest = int(lengths[0])

    def words(size: int) -> Tensor:
        return torch.randint(4, max(size, 5), (8, longest), generator=generator).clamp(max=size - 1)

    source = words(num_words[0])
    pad = torch.arange(longest)[None] < longest - lengths[:, None]
    return {
        "src_tokens": source.masked_fill(pad, 1),
        "src_lengths": lengths,
        "prev_output_tokens": words(num_words[1]),
    }


def largest_difference(
    first: Any, second: Any, net_input: dict[str, Tensor]
) -> tuple[float, float]:
    """Largest absolute difference of the logits of two models, and the largest absolute logit."""
    with torch.no_grad():
        ours, theirs = (model(**net_input)[0].double() for model in (first, second))
    return float((ours - theirs).abs().max()), float(ours.abs().max())
