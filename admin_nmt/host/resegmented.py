"""Training pairs whose words are split anew in every batch, and the options that ask for it."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import BaseWrapperDataset, Dictionary
from fairseq.dataclass import ChoiceEnum
from fairseq.tasks.translation import TranslationConfig
from torch import Tensor
from torch.nn.functional import pad

from admin_nmt.data import sentence_pieces, subwords
from admin_nmt.data.resegmenting import WordSampler, sentence_keys
from admin_nmt.data.segmentations import (
    BestSegmentations,
    MergeDropout,
    Process,
    ScoredMergeDropout,
)
from admin_nmt.data.subwords import SentencePiece, SubwordNmt, Subwords
from admin_nmt.data.text_pipeline import FILE_NAME
from admin_nmt.errors import UsageError, UserError
from admin_nmt.json_files import read_json

logger = logging.getLogger(__name__)

#: Sentences that are looked at before training, and the share of their words that may be split otherwise
#: than by the folder's own codes or model.
_LOOKED_AT, _MOST_FOREIGN = 1000, 0.05
_SIDES = ("source", "target")


@dataclass
class ResegmentingTranslationConfig(TranslationConfig):
    """The options of fairseq's `translation` and ours."""

    bpe_dropout: float = field(
        default=0.0,
        metadata={
            "help": "BPE-dropout: split the words of the training text anew in every batch, passing over "
            "each merge with this probability (0.1 in the paper; default 0: off)"
        },
    )
    subword_regularization: float = field(
        default=0.0,
        metadata={
            "help": "the same with a unigram model of SentencePiece: draw among each word's 64 best "
            "segmentations by probability to the power of this (0.1 to 0.5; default 0: off)"
        },
    )
    bpe_dropout_side: ChoiceEnum(("both", *_SIDES)) = field(  # type: ignore[valid-type]
        default="both", metadata={"help": "side of the text for either (default: both)"}
    )


class ResegmentedPairs(BaseWrapperDataset):
    """Pairs whose words are split anew whenever they are put into a batch.

    Batches are made by the lengths without chance. A sentence that would be longer than its model (or
    the largest of `--num-batch-buckets`) takes stays as it is.

    Args:
        pairs: fairseq's data set.
        samplers: for source and target; None leaves a side as it is.
        seed: of the run.
    """

    def __init__(self, pairs: Any, samplers: Sequence[WordSampler | None], seed: int) -> None:
        super().__init__(pairs)
        self.samplers = samplers
        self.seed = seed
        self.limits: Sequence[int | None] = (None, None)
        # In shared memory: worker processes live on from epoch to epoch.
        self._epoch = torch.ones(1, dtype=torch.long).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """The epoch from which batches are drawn now."""
        super().set_epoch(epoch)
        self._epoch.fill_(epoch)

    def filter_indices_by_size(self, indices: Any, max_sizes: Any) -> Any:
        """As of the pairs; the sizes hold for what is drawn too."""
        both = max_sizes if isinstance(max_sizes, Sequence) else (max_sizes, max_sizes)
        self.limits = tuple(None if size is None else int(size) for size in both)
        return super().filter_indices_by_size(indices, max_sizes)

    def num_tokens_vec(self, indices: Any) -> Any:
        """As of the pairs."""
        return self.dataset.num_tokens_vec(indices)

    def collater(self, samples: list[dict[str, Any]]) -> Any:
        """A batch of the pairs, split anew."""
        if samples:
            numbers = np.array([sample["id"] for sample in samples], dtype=np.int64)
            samples = [dict(sample) for sample in samples]
            for side, (name, sampler) in enumerate(zip(_SIDES, self.samplers, strict=True)):
                if sampler is not None:
                    old = [sample[name] for sample in samples]
                    for sample, new in zip(
                        samples, self._resegmented(old, side, sampler, numbers), strict=True
                    ):
                        sample[name] = new
        return self.dataset.collater(samples)

    def _resegmented(
        self, sentences: list[Tensor], side: int, sampler: WordSampler, numbers: Any
    ) -> list[Tensor]:
        """The sentences of one side, as long as their buckets where there are such."""
        keys = sentence_keys(self.seed, int(self._epoch), side, numbers)
        limit = self.limits[side]
        padded = (self.dataset.src, self.dataset.tgt)[side]
        buckets = getattr(padded, "buckets", None)
        if buckets is not None:
            sentences = [sentence[sentence != padded.pad_idx] for sentence in sentences]
            limit = min(int(buckets[-1]), int(buckets[-1]) if limit is None else limit)
        drawn = sampler.resegment([sentence.numpy() for sentence in sentences], keys, limit)
        result = [torch.from_numpy(sentence) for sentence in drawn]
        if buckets is not None:
            result = [_padded(sentence, buckets, padded) for sentence in result]
        return result


def _padded(sentence: Tensor, buckets: Any, like: Any) -> Tensor:
    """A sentence filled up to the smallest bucket that holds it, as fairseq's `like` does."""
    missing = int(buckets[np.searchsorted(buckets, len(sentence))]) - len(sentence)
    return pad(sentence, (missing, 0) if like.left_pad else (0, missing), value=like.pad_idx)


def resegmented(task: Any, pairs: Any, seed: int) -> ResegmentedPairs:
    """The training pairs of a task as its options ask for.

    Args:
        task: fairseq's translation task; it keeps what was found out about words.
        pairs: its training set.
        seed: of the run.

    Raises:
        UsageError: options that make no sense, or do not fit the data folder.
        UserError: the folder does not say how its words were split, or they were split otherwise.
    """
    cfg = task.cfg
    _require_sense(cfg)
    folder = Path(str(cfg.data).split(os.pathsep)[0])
    pieces = _subwords(folder)
    wanted = str(getattr(cfg, "bpe_dropout_side", "both"))
    dictionaries = (task.source_dictionary, task.target_dictionary)
    samplers: list[WordSampler | None] = [None, None]
    for side, name in enumerate(_SIDES):
        if wanted in ("both", name):
            samplers[side] = _sampler(task, pieces, dictionaries[side])
    result = ResegmentedPairs(pairs, samplers, seed)
    option = _option(cfg)
    growth = _growth(result, folder, pieces, option)
    value = cfg.bpe_dropout or cfg.subword_regularization
    logger.info(
        f"{option} {value:g}, {wanted}: words are split anew in every batch by {pieces.path}; sentences "
        f"are {growth:.2f} times as long, and batches are made by their length without it"
    )
    return result


def _option(cfg: Any) -> str:
    """The one that was given."""
    return "--bpe-dropout" if cfg.bpe_dropout else "--subword-regularization"


def _require_sense(cfg: Any) -> None:
    if cfg.bpe_dropout and cfg.subword_regularization:
        raise UsageError("--bpe-dropout and --subword-regularization exclude each other")
    if not 0 <= cfg.bpe_dropout <= 1:
        raise UsageError(f"--bpe-dropout {cfg.bpe_dropout}: give a probability from 0 to 1")
    if cfg.subword_regularization < 0:
        raise UsageError(
            f"--subword-regularization {cfg.subword_regularization}: give a number above 0"
        )
    if cfg.load_alignments:
        raise UsageError(
            f"--load-alignments: alignments belong to the subwords without {_option(cfg)}"
        )


def _subwords(folder: Path) -> Subwords:
    """How the words of a data folder were split: by `preparation.json`, or a file of the usual name."""
    path = folder / FILE_NAME
    if path.is_file():
        try:
            return subwords.read(read_json(path), folder)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} names neither BPE codes nor a SentencePiece model") from error
    for kind in subwords.SUBWORD_KINDS.values():
        if (folder / kind.file_name).is_file():
            return kind(folder / kind.file_name)
    raise UserError(
        f"{folder} does not say how its words were split: it has no {FILE_NAME} (admin-nmt prepare "
        f"writes it), no {SubwordNmt.file_name} and no {SentencePiece.file_name}; copy the BPE codes or "
        "the SentencePiece model there"
    )


def _process(pieces: Subwords, cfg: Any) -> Process:
    """How words are split by chance."""
    if isinstance(pieces, SubwordNmt):
        is_unigram = False
    else:
        is_unigram = sentence_pieces.model_type(pieces.path) == "unigram"
    if is_unigram and cfg.bpe_dropout:
        raise UsageError(
            f"--bpe-dropout: {pieces.path} is a unigram model, which has no merges; give "
            "--subword-regularization"
        )
    if not is_unigram and cfg.subword_regularization:
        raise UsageError(
            f"--subword-regularization: {pieces.path} holds merges and not a unigram model; give "
            "--bpe-dropout"
        )
    if is_unigram:
        return BestSegmentations(pieces.path, cfg.subword_regularization)
    if isinstance(pieces, SubwordNmt):
        return MergeDropout(pieces.path, cfg.bpe_dropout)
    return ScoredMergeDropout(pieces.path, cfg.bpe_dropout)


def _sampler(task: Any, pieces: Subwords, dictionary: Dictionary) -> WordSampler:
    """The sampler of a dictionary, one for equal ones; training sets that are loaded anew for an epoch
    find it again."""
    known: list[WordSampler] = task.__dict__.setdefault("_admin_nmt_samplers", [])
    for sampler in known:
        if sampler.symbols == dictionary.symbols:
            return sampler
    known.append(
        WordSampler(
            _process(pieces, task.cfg),
            pieces,
            dictionary.symbols,
            dictionary.nspecial,
            dictionary.unk(),
        )
    )
    return known[-1]


def _growth(pairs: ResegmentedPairs, folder: Path, pieces: Subwords, option: str) -> float:
    """How much longer sentences become; refuses text that was split otherwise.

    Raises:
        UserError: names folder and codes.
    """
    old = new = 0
    numbers = np.arange(min(len(pairs), _LOOKED_AT))
    for side, sampler in enumerate(pairs.samplers):
        if sampler is None:
            continue
        data = (pairs.dataset.src, pairs.dataset.tgt)[side]
        data = getattr(data, "dataset", data) if hasattr(data, "buckets") else data
        sentences = [data[int(number)].numpy() for number in numbers]
        share = sampler.share_of_foreign_words(sentences)
        if share > _MOST_FOREIGN:
            raise UserError(
                f"{share:.0%} of the words in {folder} are not split as {pieces.path.name} there "
                f"splits them: prepare the data again, or leave out {option}"
            )
        drawn = sampler.resegment(sentences, sentence_keys(pairs.seed, 0, side, numbers))
        old += sum(map(len, sentences))
        new += sum(map(len, drawn))
    return new / old
