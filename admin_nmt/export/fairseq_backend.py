"""The engine for checkpoints: fairseq's beam search in this process."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils, utils
from fairseq.data import data_utils
from fairseq.models import FairseqEncoderDecoderModel

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.checkpoints.direction import require_fitting_vocabulary
from admin_nmt.errors import UsageError, UserError
from admin_nmt.export.search import Alignment, Hypothesis, Search, Sentence
from admin_nmt.search.beam import BeamSearch
from admin_nmt.search.limits import output_limit


class FairseqBackend:
    """fairseq's beam search on a checkpoint of any of its encoder-decoder models.

    Args:
        checkpoint: opened.
        data: folder with the dictionaries.
        source: language code.
        target: language code.
        threads: cores.
        device: `cpu`, `cuda` or `auto`.

    Raises:
        UserError: it does not fit the vocabulary, or is not a model with an encoder; no GPU for `cuda`.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        data: Path,
        source: str,
        target: str,
        threads: int,
        device: str = "auto",
    ) -> None:
        cuda = device != "cpu" and torch.cuda.is_available()
        if device == "cuda" and not cuda:
            raise UserError("--device cuda: PyTorch finds no GPU here; give --device cpu or auto")
        require_fitting_vocabulary(checkpoint, data, source, target)
        torch.set_num_threads(threads)
        self.models, config, self.task = checkpoint_utils.load_model_ensemble_and_task(
            [str(checkpoint.path)],
            arg_overrides={"data": str(data), "source_lang": source, "target_lang": target},
        )
        if not isinstance(self.models[0], FairseqEncoderDecoderModel):
            raise UserError(
                f"checkpoint {checkpoint.path} is not a translation model with an encoder"
            )
        self.device = torch.device("cuda" if cuda else "cpu")
        for model in self.models:
            model.to(self.device).prepare_for_inference_(config)
        limits = [
            utils.resolve_max_positions(self.task.max_positions(), model.max_positions())
            for model in self.models
        ]
        self.left_pad_source = bool(config.task.left_pad_source)
        # The end of sentence takes one position.
        self.max_source = min(limit[0] for limit in limits) - 1
        self.max_target = min(limit[1] for limit in limits) - 1

    def translate(
        self, batches: Iterable[list[Sentence]], search: Search
    ) -> Iterator[list[list[Hypothesis]]]:
        """One batch after the other."""
        words = self.task.target_dictionary
        beam_search = self._beam_search(search)
        for batch in batches:
            sample = {"net_input": self._net_input(batch)}
            found = [
                hypotheses[: search.nbest]
                for hypotheses in beam_search(sample, output_limit(batch, self.max_target))
            ]
            tokens = [[one.tokens for one in hypotheses] for hypotheses in found]
            attended = iter(self._attended(batch, tokens, search.alignment))
            yield [
                [
                    Hypothesis(words.string(one.tokens).split(), one.score, next(attended, None))
                    for one in hypotheses
                ]
                for hypotheses in found
            ]

    def _attended(
        self, batch: list[Sentence], targets: list[list[Any]], alignment: Alignment | None
    ) -> list[list[int]]:
        """What each hypothesis attends to, one after the other; nothing if it is not asked for.

        The search keeps the attention of one layer. This is a pass of its own over what it found, by
        which any layer can be read, and one that sees the whole translation.

        Args:
            batch: B source sentences.
            targets: for each of them hypotheses, tensors of numbers that end with the end of sentence.
        """
        if alignment is None:
            return []
        model, words = self.models[0], self.task.target_dictionary
        flat = [target for of_sentence in targets for target in of_sentence]
        previous = data_utils.collate_tokens(
            flat, words.pad(), words.eos(), left_pad=False, move_eos_to_beginning=True
        )
        numbers = [number for number, found in enumerate(targets) for _ in found]
        net_input = self._net_input(batch)
        with torch.no_grad():
            encoded = model.encoder.reorder_encoder_out(
                model.encoder(**net_input), torch.tensor(numbers, device=self.device)
            )
            _, extra = model.decoder(
                previous.to(self.device),
                encoder_out=encoded,
                features_only=True,
                **self._which_attention(alignment),
            )
        weights = extra["attn"][0].float().cpu()  # (N, T, S)
        attended = []
        for row, (number, target) in enumerate(zip(numbers, flat, strict=True)):
            # Neither padding, which stands on the left or on the right, nor the end of the sentence.
            first = weights.shape[2] - len(batch[number]) - 1 if self.left_pad_source else 0
            places = weights[row, :, first : first + len(batch[number])].argmax(dim=1).tolist()
            # Words that are not written, which `Dictionary.string` leaves out.
            silent = (words.eos(), words.bos())
            attended.append(
                [
                    p
                    for p, index in zip(places, target.tolist(), strict=False)
                    if index not in silent
                ]
            )
        return attended

    def _which_attention(self, alignment: Alignment) -> dict[str, Any]:
        """fairseq's arguments for it."""
        model = self.models[0]
        names = ("alignment_layer", "alignment_heads", "full_context_alignment")
        layer, heads, full_context = (getattr(model, name, None) for name in names)
        which, full_context = alignment.or_trained(layer, heads, bool(full_context))
        return dict(zip(names, (which.layer, which.heads, full_context), strict=True))

    def require_alignment(self, alignment: Alignment) -> None:
        """Any layer of a Transformer that has encoder-decoder attention."""
        model = self.models[0]
        if not getattr(model, "supports_align_args", False):
            raise UserError(
                f"--alignments: a {type(model).__name__} has no attention of a Transformer to read "
                "them from"
            )
        which, layers = self._which_attention(alignment), model.decoder.layers
        layer = len(layers) - 1 if which["alignment_layer"] is None else which["alignment_layer"]
        if layer >= len(layers):
            raise UsageError(
                f"--alignment-layer {layer}: the decoder has layers 0 to {len(layers) - 1}"
            )
        attention = layers[layer].encoder_attn
        heads = attention.num_heads if attention is not None else 0
        if not heads:
            raise UsageError(
                f"--alignment-layer {layer}: this layer of the decoder has no encoder-decoder heads"
            )
        if (which["alignment_heads"] or 1) > heads:
            raise UsageError(
                f"--alignment-heads {which['alignment_heads']}: layer {layer} of the decoder has {heads}"
            )

    def _beam_search(self, search: Search) -> BeamSearch:
        how: dict[str, Any] = {"beam": search.beam}
        if (sampling := search.sampling) is not None:
            how = {
                "beam": search.nbest,
                "sampling": True,
                # There, -1 is off.
                "sampling_topk": min(sampling.topk, len(self.task.target_dictionary)) or -1,
                "sampling_topp": sampling.topp if sampling.topp < 1 else -1.0,
                "temperature": sampling.temperature,
            }
        remedy = "lower --beam, make batches smaller or give --device cpu"
        return BeamSearch(self.models, self.task, remedy, lenpen=search.lenpen, **how)

    def seed(self, seed: int) -> None:
        """PyTorch's random numbers, which nothing else draws on here."""
        torch.manual_seed(seed)

    def scores(self, sources: list[Sentence], targets: list[Sentence]) -> list[float]:
        """Mean log-probability of each target's subwords and its end, given the source."""
        words = self.task.target_dictionary
        wanted = _collate(words, targets, left_pad=False).to(self.device)  # (B, T)
        previous = wanted.roll(1, dims=1)
        previous[:, 0] = words.eos()
        with torch.no_grad():
            output = self.models[0](**self._net_input(sources), prev_output_tokens=previous)
            log_probs = self.models[0].get_normalized_probs(output, log_probs=True).float()
        found = log_probs.gather(2, wanted[:, :, None])[:, :, 0]
        counted = wanted != words.pad()
        means: list[float] = ((found * counted).sum(dim=1) / counted.sum(dim=1)).tolist()
        return means

    def _net_input(self, batch: list[Sentence]) -> dict[str, Any]:
        words = self.task.source_dictionary
        tokens = _collate(words, batch, self.left_pad_source)
        return {
            "src_tokens": tokens.to(self.device),
            "src_lengths": tokens.ne(words.pad()).sum(dim=1).to(self.device),
        }


def _collate(words: Any, batch: list[Sentence], left_pad: bool) -> Any:
    """Numbers of the subwords and an end of every sentence, padded: (B, longest)."""
    sentences = [
        words.encode_line(" ".join(sentence), add_if_not_exist=False).long() for sentence in batch
    ]
    return data_utils.collate_tokens(sentences, words.pad(), words.eos(), left_pad=left_pad)
