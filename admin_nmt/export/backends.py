"""What a translator needs of an engine, and the two engines: CTranslate2 and fairseq.

An engine gets batches of sentences in subwords and gives hypotheses in subwords. Both search alike:
the same beam, scores divided by length ** lenpen, the same limit on the length of the output.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from admin_nmt.errors import UsageError, UserError, require_at_least_one, require_seed
from admin_nmt.json_files import read_json

if TYPE_CHECKING:  # the other engine needs no torch
    from admin_nmt.checkpoints.checkpoint import Checkpoint
    from admin_nmt.search.beam import BeamSearch

#: Subwords of output that are always allowed (fairseq's default for `--max-len-b`).
MIN_OUTPUT_LIMIT = 200

Sentence = list[str]


@dataclass(frozen=True)
class Sampling:
    """How to draw the next subword.

    Attributes:
        topk: from this many most probable ones; 0, or more than there are, from all.
        topp: from the most probable ones that together have this probability; 1 from all.
        temperature: by which logits are divided; below 1 favours probable ones.
        seed: of the random numbers.
    """

    topk: int = 0
    topp: float = 1.0
    temperature: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.topk < 0:
            raise UsageError(f"--sampling-topk {self.topk}: give a number of at least 0")
        require_seed(self.seed)
        if not 0 < self.topp <= 1:
            raise UsageError(f"--sampling-topp {self.topp}: give a number above 0, at most 1")
        if not self.temperature > 0:
            raise UsageError(f"--temperature {self.temperature}: give a number above 0")
        if self.topk and self.topp < 1:
            raise UsageError("--sampling-topk and --sampling-topp exclude each other")


@dataclass(frozen=True)
class Alignment:
    """Which encoder-decoder attention tells what a word was translated from.

    Attributes:
        layer: of the decoder, from 0; None for the one that was trained for it, else the last.
        heads: the average of this many, the first ones; None for those that were trained for it, else all.
    """

    layer: int | None = None
    heads: int | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and self.layer < 0:
            raise UsageError(f"--alignment-layer {self.layer}: layers count from 0")
        require_at_least_one("--alignment-heads", self.heads)

    def or_trained(
        self, layer: int | None, heads: int | None, full_context: bool
    ) -> tuple["Alignment", bool]:
        """This attention, with what was trained to align in place of what is not said.

        Args:
            layer: that was trained, None if none was.
            heads: that were trained.
            full_context: they were trained to see the whole translation.

        Returns:
            the attention, and whether it is to see the whole translation.
        """
        if layer is None or self.layer not in (None, layer):
            return self, False
        return Alignment(layer, heads if self.heads is None else self.heads), full_context


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        beam: hypotheses kept at every step.
        nbest: hypotheses returned for a sentence, at most `beam`.
        lenpen: exponent of the length by which scores are divided; above 1 favours long output.
        sampling: draw `nbest` hypotheses at random, without a beam.
        alignment: also tell what every subword was translated from.
    """

    beam: int = 5
    nbest: int = 1
    lenpen: float = 1.0
    sampling: Sampling | None = None
    alignment: Alignment | None = None

    def __post_init__(self) -> None:
        require_at_least_one("--beam", self.beam)
        require_at_least_one("--nbest", self.nbest)
        if self.sampling is None and self.nbest > self.beam:
            raise UsageError(f"--nbest {self.nbest} needs --beam of at least {self.nbest}")


@dataclass(frozen=True)
class Hypothesis:
    """One translation of a sentence in subwords.

    Attributes:
        tokens: T subwords.
        score: log-probability over length.
        attended: for each of them the index of the source subword that it attends to most when it is
            predicted; None if that was not asked for.
    """

    tokens: Sentence
    score: float
    attended: list[int] | None = None


class Backend(Protocol):
    """An engine.

    Attributes:
        max_source: longest input in subwords.
    """

    max_source: int

    def translate(
        self, batches: Iterable[list[Sentence]], search: Search
    ) -> Iterator[list[list[Hypothesis]]]:
        """For every batch, in order: for every sentence its `search.nbest` hypotheses, best first."""

    def require_alignment(self, alignment: Alignment) -> None:
        """Find out before translating whether words can be aligned.

        Raises:
            UsageError: there is no such layer, or it cannot be chosen here.
            UserError: this model's attention cannot be had.
        """

    def seed(self, seed: int) -> None:
        """Start the random numbers of sampling anew."""


def output_limit(batch: list[Sentence], max_target: int) -> int:
    """Longest output of a batch: fairseq's default of 200, or twice the longest input."""
    longest = max(len(sentence) for sentence in batch)
    return min(max(MIN_OUTPUT_LIMIT, 2 * longest), max_target)


class CTranslate2Backend:
    """CTranslate2 on a converted model.

    Args:
        folder: the converted model.
        max_source: longest input in subwords.
        max_target: longest output in subwords.
        threads: batches translated at the same time, one core each.
        device: `cpu`, `cuda` or `auto`.
        full_context: attention was trained with `--full-context-alignment`, which CTranslate2 lacks.

    Raises:
        UserError: CTranslate2 is not installed, or cannot load the model.
    """

    def __init__(
        self,
        folder: Path,
        max_source: int,
        max_target: int,
        threads: int,
        device: str = "auto",
        full_context: bool = False,
    ) -> None:
        self.max_source = max_source
        self.max_target = max_target
        self.threads = threads
        self.folder = folder
        self.device = device
        self.full_context = full_context
        self.engine = self._load()

    def _load(self) -> Any:
        try:
            # One core per batch beats several cores in one batch: no step waits for the others.
            return import_ctranslate2().Translator(
                str(self.folder), device=self.device, inter_threads=self.threads, intra_threads=1
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"CTranslate2 cannot load {self.folder}: {error}") from error

    @cached_property
    def _vocabulary_size(self) -> int:
        """Of the target language, which CTranslate2 itself does not tell; its older folders keep words
        in another form, for which it is the largest number that CTranslate2 takes."""
        for name in ("target_vocabulary.json", "shared_vocabulary.json"):
            if (self.folder / name).is_file():
                return len(read_json(self.folder / name))
        return 2**31 - 1

    def require_alignment(self, alignment: Alignment) -> None:
        """CTranslate2's layer and heads are part of its model."""
        if alignment != Alignment():
            raise UsageError(
                "an exported folder has its layer of alignments: give --alignment-layer and "
                "--alignment-heads to admin-nmt export"
            )
        if self.full_context:
            raise UserError(
                f"{self.folder} was trained with --full-context-alignment: its attention sees the whole "
                "translation, which CTranslate2 cannot do; translate with the checkpoint"
            )

    def seed(self, seed: int) -> None:
        """With new threads: each takes the seed when it draws its first random number."""
        import_ctranslate2().set_random_seed(seed)
        self.engine = self._load()

    def translate(
        self, batches: Iterable[list[Sentence]], search: Search
    ) -> Iterator[list[list[Hypothesis]]]:
        """Keep all threads busy with a few batches in advance."""
        waiting: deque[list[tuple[Any, Any]]] = deque()
        for batch in batches:
            first_words = self._start_first_words(batch, search)
            waiting.append(list(zip(self._start(batch, search), first_words, strict=True)))
            if len(waiting) > 2 * self.threads:
                yield [self._result(*started) for started in waiting.popleft()]
        while waiting:
            yield [self._result(*started) for started in waiting.popleft()]

    def scores(self, sources: list[Sentence], targets: list[Sentence]) -> list[float]:
        """Mean log-probability of each target's subwords and its end, given the source."""
        results = self.engine.score_batch(sources, targets, max_input_length=0)
        return [sum(result.log_probs) / len(result.log_probs) for result in results]

    def _start(self, batch: list[Sentence], search: Search) -> list[Any]:
        how: dict[str, Any] = {"beam_size": search.beam}
        if search.sampling is not None:
            how = {
                "beam_size": 1,
                "sampling_topk": min(search.sampling.topk, self._vocabulary_size),
                "sampling_topp": search.sampling.topp,
                "sampling_temperature": search.sampling.temperature,
                # No beam finds these, but label smoothing gives them some probability.
                "suppress_sequences": [["<s>"], ["<blank>"]],
            }
        started: list[Any] = self.engine.translate_batch(
            batch,
            asynchronous=True,
            num_hypotheses=search.nbest,
            length_penalty=search.lenpen,
            max_input_length=0,
            max_decoding_length=output_limit(batch, self.max_target),
            return_scores=True,
            return_attention=search.alignment is not None,
            **how,
        )
        return started

    def _start_first_words(self, batch: list[Sentence], search: Search) -> list[Any]:
        """For each sentence a search that ends after one subword, or None where it is not needed.

        In a batch of several sentences CTranslate2's beam search (4.8.5) gives the first subword the
        attention of another sentence. What a translation begins with does not bear on it, so that a
        search without a beam gives the right one.
        """
        if search.alignment is None or search.sampling or search.beam == 1 or len(batch) == 1:
            return [None] * len(batch)
        started: list[Any] = self.engine.translate_batch(
            batch,
            asynchronous=True,
            beam_size=1,
            max_input_length=0,
            max_decoding_length=1,
            return_attention=True,
        )
        return started

    @staticmethod
    def _result(started: Any, first_word: Any) -> list[Hypothesis]:
        result = started.result()
        hypotheses: list[Hypothesis] = []
        for rank, (tokens, score) in enumerate(zip(result.hypotheses, result.scores, strict=True)):
            attended = None
            if result.attention:
                weights = result.attention[rank]  # (T, S), without the ends of both sentences
                if first_word is not None:
                    weights = [*first_word.result().attention[0], *weights[1:]][: len(weights)]
                attended = [row.index(max(row)) for row in weights]
            hypotheses.append(Hypothesis(tokens, score, attended))
        return hypotheses


def import_ctranslate2() -> Any:
    """The module `ctranslate2`.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise UserError(
            f"CTranslate2 cannot be imported ({error}); pip install 'ctranslate2>=4.5'"
        ) from error
    return ctranslate2


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
        UserError: it does not fit the vocabulary, or is not a model with an encoder.
    """

    def __init__(
        self,
        checkpoint: "Checkpoint",
        data: Path,
        source: str,
        target: str,
        threads: int,
        device: str = "auto",
    ) -> None:
        import torch
        from fairseq import checkpoint_utils, utils
        from fairseq.models import FairseqEncoderDecoderModel

        from admin_nmt.checkpoints.direction import require_fitting_vocabulary

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
        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
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
        import torch
        from fairseq.data import data_utils

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

    def _beam_search(self, search: Search) -> "BeamSearch":
        from admin_nmt.search.beam import BeamSearch

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
        import torch

        torch.manual_seed(seed)

    def scores(self, sources: list[Sentence], targets: list[Sentence]) -> list[float]:
        """Mean log-probability of each target's subwords and its end, given the source."""
        import torch

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
    from fairseq.data import data_utils

    sentences = [
        words.encode_line(" ".join(sentence), add_if_not_exist=False).long() for sentence in batch
    ]
    return data_utils.collate_tokens(sentences, words.pad(), words.eos(), left_pad=left_pad)
