"""Options of fairseq's generation that its own code does not do justice to."""

import argparse
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from admin_nmt.errors import UsageError
from admin_nmt.host.patch import Patch, Scope


def _up_to_here(block: Callable) -> Callable:
    """`--no-repeat-ngram-size N` compares the N - 1 words generated last; fairseq's Python code compares
    the end of its buffer, which lies beyond them, so it never finds a repetition."""

    @wraps(block)
    def _no_repeat_ngram(
        self: Any, tokens: Tensor, lprobs: Tensor, bsz: int, beam_size: int, step: int
    ) -> Tensor:
        return block(self, tokens[:, : step + 1], lprobs, bsz, beam_size, step)

    return _no_repeat_ngram


def _by_place_in_batch(step: Callable) -> Callable:
    """`--diverse-beam-groups`: fairseq indexes the overlap of groups by the number of a sentence in its
    data set instead of its position in the batch, and ends in an IndexError."""

    @wraps(step)
    def wrapped(
        self: Any, number: int, lprobs: Any, scores: Any, prev_output_tokens: Any = None,
        original_batch_idxs: Any = None,
    ) -> Any:  # fmt: skip
        if original_batch_idxs is not None:
            if number == 0:
                self.__dict__["_first_ids"] = original_batch_idxs
            same = original_batch_idxs.unsqueeze(1) == self.__dict__["_first_ids"].unsqueeze(0)
            original_batch_idxs = same.int().argmax(dim=1)
        return step(self, number, lprobs, scores, prev_output_tokens, original_batch_idxs)

    return wrapped


def source_of_word(alignment: Any, place: int) -> int:
    """The place of the source word that a target word is aligned with.

    Args:
        alignment: places by target word, or pairs (source, target) as fairseq has them today.
        place: of the target word.

    Raises:
        UsageError: nothing is aligned.

    >>> source_of_word([2, 0], 1), source_of_word([(2, 0), (0, 1)], 1)
    (0, 0)
    """
    places = list(alignment) if alignment is not None else []
    if places and isinstance(places[0], tuple):
        places = [source for source, target in places if target == place]
        place = 0
    if place >= len(places):
        raise UsageError("--replace-unk needs --print-alignment: without it no alignment is made")
    return int(places[place])


def _with_pairs(replace_unk: Callable) -> Callable:
    """`--replace-unk` understands alignments as pairs, as fairseq makes them today, and says that it
    needs `--print-alignment`."""

    @wraps(replace_unk)
    def wrapped(hypo: str, source: str, alignment: Any, align_dict: Any, unk: str) -> str:
        words = hypo.split()
        places = {i: source_of_word(alignment, i) for i, word in enumerate(words) if word == unk}
        # Places of words that are known are not looked at.
        flat = [places.get(i, 0) for i in range(len(words))]
        return replace_unk(hypo, source, flat, align_dict, unk)

    return wrapped


def _shards_and_constraints(parse: Callable) -> Callable:
    """`fairseq-generate --num-shards N --shard-id K` translates the K-th part, where fairseq translates
    everything N times; `--constraints`, and `--replace-unk` for binarised data, are refused there in one
    line."""

    @wraps(parse)
    def parse_args_and_arch(
        parser: argparse.ArgumentParser, input_args: Sequence[str] | None = None, **kwargs: Any
    ) -> Any:
        result = parse(parser, input_args, **kwargs)
        args = result[0] if isinstance(result, tuple) else result
        if (
            hasattr(args, "beam")
            and hasattr(args, "gen_subset")
            and not hasattr(args, "buffer_size")
        ):
            _for_generate(args)
        return result

    return parse_args_and_arch


def _for_generate(args: argparse.Namespace) -> None:
    """Check and complete the options of `fairseq-generate`, in place.

    Raises:
        UsageError: naming the option.
    """
    if getattr(args, "replace_unk", None) is not None and args.dataset_impl != "raw":
        raise UsageError(
            "--replace-unk copies words of the text, which binarised data does not have: give "
            "--dataset-impl raw (also to fairseq-preprocess), or use fairseq-interactive"
        )
    if getattr(args, "constraints", None):
        raise UsageError(
            "--constraints is for fairseq-interactive, which reads them behind each sentence "
            "(SENTENCE<tab>CONSTRAINT<tab>...)"
        )
    shards, shard = args.num_shards, args.shard_id
    if shards > 1:
        if not 0 <= shard < shards:
            raise UsageError(
                f"--shard-id {shard}: with --num-shards {shards} it is 0 to {shards - 1}"
            )
        # fairseq-generate takes its part by these, and starts no processes.
        args.distributed_world_size, args.distributed_rank = shards, shard


def _truncated(build: Callable) -> Callable:
    """`fairseq-interactive --truncate-source` cuts long lines to `--max-source-positions`, as
    `fairseq-generate` does; fairseq ignores the option there and ends in a traceback."""

    @wraps(build)
    def build_dataset_for_inference(
        self: Any, src_tokens: Sequence[Tensor], src_lengths: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if self.cfg.truncate_source:
            limit, end = self.cfg.max_source_positions, self.source_dictionary.eos()
            src_tokens = [
                torch.cat([line[: limit - 1], line.new_tensor([end])])
                if len(line) > limit
                else line
                for line in src_tokens
            ]
            src_lengths = [len(line) for line in src_tokens]
        return build(self, src_tokens, src_lengths, *args, **kwargs)

    return build_dataset_for_inference


PATCHES = (
    Patch(
        "fairseq.tasks.translation:TranslationTask",
        "build_dataset_for_inference",
        _truncated,
        Scope.FAILURES,
    ),
    Patch(
        "fairseq.ngram_repeat_block:NGramRepeatBlock",
        "_no_repeat_ngram",
        _up_to_here,
        Scope.FAILURES,
    ),
    Patch("fairseq.search:DiverseBeamSearch", "step", _by_place_in_batch, Scope.FAILURES),
    Patch("fairseq.utils", "replace_unk", _with_pairs, Scope.FAILURES),
    Patch("fairseq.options", "parse_args_and_arch", _shards_and_constraints, Scope.FAILURES),
)
