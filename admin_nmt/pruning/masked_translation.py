"""Translating a test set again and again with one model in memory and other heads masked each time.

Every translation is kept in a file named after the model and the masked heads, so nothing is
translated twice: neither after an interruption nor when two experiments meet in one setting.
Checksums of the test set, in `settings.json`, tell when it is no longer the one that was translated.
"""

import dataclasses
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from admin_nmt.errors import UserError, require_at_least_one
from admin_nmt.evaluation.decoding import Decoder, SearchOptions
from admin_nmt.evaluation.evaluate import choose_reference
from admin_nmt.evaluation.preparation import read_preparation
from admin_nmt.evaluation.scoring import build_metrics
from admin_nmt.evaluation.text import read_lines, require_equal_counts
from admin_nmt.files import atomic_write, make_directory
from admin_nmt.json_files import require_same_settings
from admin_nmt.models.heads import attentions
from admin_nmt.modules.head_names import Head
from admin_nmt.pruning.loading import LoadedModel
from admin_nmt.pruning.records import checksums

SETTINGS = "settings.json"


@contextmanager
def masked(model: Any, heads: Collection[Head]) -> Iterator[None]:
    """Let the heads contribute nothing inside the block; those masked before stay so."""
    before = [(attention, attention.head_gate) for *_, attention in attentions(model)]
    try:
        for kind, layer, _, attention in attentions(model):
            off = [head.head - 1 for head in heads if head[:2] == (kind, layer)]
            if off:
                like = attention.out_proj.bias
                mask = torch.ones(attention.num_heads, dtype=like.dtype, device=like.device)
                mask[off] = 0.0
                earlier = attention.head_gate
                attention.head_gate = mask if earlier is None else mask * earlier
        yield
    finally:
        for attention, gate in before:
            attention.head_gate = gate


class TestSet:
    """One subset with its reference, and the folder where its translations are kept.

    Args:
        data: folder made by `fairseq-preprocess` or `admin-nmt prepare`.
        subset: such as `test`.
        target: language code.
        options: how to search.
        folder: for translations and results; made if missing.
        reference: untouched reference file; None as in `evaluate`.
        max_sentences: translate only this many sentences, the first ones.

    Raises:
        UserError: the folder holds translations made in another way or of other text, or the
            reference is bad.
        UsageError: `max_sentences` is below 1.
    """

    __test__ = False  # not a test for pytest

    def __init__(
        self,
        data: str | os.PathLike[str],
        subset: str,
        target: str,
        options: SearchOptions,
        folder: str | os.PathLike[str],
        reference: str | None = None,
        max_sentences: int | None = None,
    ) -> None:
        require_at_least_one("--max-sentences", max_sentences)
        preparation = read_preparation(data)
        self.preparation = preparation
        self.subset = subset
        self.target = target
        self.options = options
        self.max_sentences = max_sentences
        self.lowercase = preparation.lowercase
        self.given = choose_reference(reference, preparation, subset, target)
        self.folder = make_directory(folder)
        self.metric = build_metrics(("bleu",), lowercase=self.lowercase, target=target)["BLEU"]
        self.references: list[str] = []
        require_same_settings(
            self.folder / SETTINGS,
            dataclasses.asdict(options)
            | {
                "data": str(Path(data).absolute()),
                "subset": subset,
                "max_sentences": max_sentences,
                "test set": checksums(data, subset),
            },
            earlier={"test set": None},
        )

    def set_references(self, binarised: Sequence[str]) -> None:
        """Choose the reference: the given one, else the binarised one, detokenised."""
        lines = self.given.lines
        if lines is None:
            lines = self.preparation.text(binarised, self.target)
        else:
            lines = lines[: self.max_sentences]
        require_equal_counts(self.given.origin, lines, f"subset {self.subset}", binarised)
        self.references = lines

    def bleu(self, hypotheses: Sequence[str]) -> float:
        """sacreBLEU of a translation of the whole set."""
        return float(self.metric.corpus_score(hypotheses, [self.references]).score)

    @property
    def signature(self) -> str:
        """sacreBLEU's, known after the first score."""
        return self.metric.get_signature().format()


class MaskedTranslator:
    """Translations of one model with heads masked.

    Args:
        loaded: the model; it is left as it was.
        test_set: what to translate; its references are set.
    """

    def __init__(self, loaded: LoadedModel, test_set: TestSet) -> None:
        self.loaded = loaded
        self.test_set = test_set
        self.folder = make_directory(test_set.folder / "translations" / loaded.fingerprint[:16])
        self.decoder = Decoder(
            [loaded.model],
            loaded.task,
            test_set.subset,
            test_set.options,
            test_set.max_sentences,
            max_tokens_option="--decode-max-tokens",
        )
        if self.decoder.references is None:
            raise UserError(f"subset {test_set.subset} has no reference to score translations by")
        test_set.set_references(self.decoder.references)

    @property
    def num_sentences(self) -> int:
        """Of the test set."""
        return self.decoder.num_sentences

    def path(self, removed: Collection[Head]) -> Path:
        """Where the translation without the heads `removed` is kept."""
        names = ",".join(map(str, sorted(removed)))
        return self.folder / f"{hashlib.sha256(names.encode()).hexdigest()[:20]}.txt"

    def is_done(self, removed: Collection[Head]) -> bool:
        """Whether it is there already."""
        return self.path(removed).exists()

    def translate(self, removed: Collection[Head]) -> list[str]:
        """Detokenised translations in corpus order with the heads `removed` masked."""
        path = self.path(removed)
        if not path.exists():
            lines = self.test_set.preparation.text(self._decode(removed), self.test_set.target)
            with atomic_write(path) as stream:
                stream.writelines(f"{line}\n" for line in lines)
        # Read back in any case: what is scored does not depend on when it was translated.
        lines = read_lines(path)
        require_equal_counts(str(path), lines, self.test_set.subset, self.test_set.references)
        return lines

    def _decode(self, removed: Collection[Head]) -> list[str]:
        with masked(self.loaded.model, removed):
            return self.decoder.decode()
