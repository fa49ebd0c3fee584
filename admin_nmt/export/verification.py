"""Checks that what was written computes what was trained."""

import random
from argparse import Namespace
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from admin_nmt.checkpoints.checkpoint import Checkpoint
from admin_nmt.checkpoints.tensors import widened
from admin_nmt.errors import UserError
from admin_nmt.export.ctranslate2_backend import CTranslate2Backend
from admin_nmt.export.fairseq_backend import FairseqBackend
from admin_nmt.export.search import Search, Sentence
from admin_nmt.export.text import Text

#: Largest difference of logits that folding may leave, relative to the largest logit. Rounding
#: stays below 1e-4 for 100 layers; a wrong fold is off by the size of the logits.
LOGIT_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Agreement:
    """How far the logits of two models are apart, and how large they are."""

    difference: float
    magnitude: float

    def line(self) -> str:
        """Human-readable summary."""
        return (
            f"logits on 8 random sentences: largest difference {self.difference:.2g}, "
            f"largest value {self.magnitude:.3g}"
        )


def compare_logits(checkpoint: Checkpoint, folded: Checkpoint) -> Agreement:
    """Run a checkpoint and its folded form on the same random sentences, in float32.

    Raises:
        UserError: they differ by more than rounding can explain.
    """
    from admin_nmt.models.loading import build_model, largest_difference, random_batch
    from admin_nmt.models.settings import model_settings

    settings, original = model_settings(checkpoint), widened(checkpoint.weights)
    batch = random_batch(settings, original)
    models = (
        build_model(settings, original, "admin_transformer"),
        build_model(Namespace(**folded.state["cfg"]["model"]), folded.weights, "transformer"),
    )
    agreement = Agreement(*largest_difference(*models, batch))
    if not agreement.difference <= LOGIT_TOLERANCE * max(agreement.magnitude, 1.0):
        raise UserError(
            f"folding {checkpoint.path} is not accurate enough ({agreement.line()}): its omegas span a range "
            "that float32 cannot bridge"
        )
    return agreement


#: Most that the score of a translation, a log-probability per subword, may differ between fairseq
#: and CTranslate2. Rounding leaves about 1e-6, bfloat16 and int8 about 0.01 (int8 on processors
#: without VNNI up to 0.24 in a model of 32 dimensions), a wrong conversion several units.
SCORE_TOLERANCE = {"float32": 0.001, "int16": 0.02, "float16": 0.02}
SCORE_TOLERANCE_COARSE = 0.5
NUM_SENTENCES = 8


def sample_sentences(folder: Path, text: Text) -> list[Sentence]:
    """A few source sentences in subwords: raw text of the data folder, else words of its dictionary.

    Args:
        folder: the data folder.
        text: its languages and pipeline.
    """
    for path in sorted((folder / "raw").glob(f"*.{text.source_lang}")):
        with path.open(encoding="utf-8", errors="replace") as stream:
            lines = [line for line in islice(stream, 4 * NUM_SENTENCES) if line.strip()]
        encoded = (text.pipeline.encode(line).split() for line in lines)
        sentences = [sentence for sentence in encoded if sentence]
        if sentences:
            return sentences[:NUM_SENTENCES]
    with (folder / f"dict.{text.source_lang}.txt").open(encoding="utf-8") as stream:
        words = [line.rsplit(" ", 1)[0] for line in islice(stream, 500)]
    rng = random.Random(1)
    return [[rng.choice(words) for _ in range(length)] for length in range(3, 3 + NUM_SENTENCES)]


def score_tolerance(quantization: str, compute_type: str) -> float:
    """The difference allowed for weights kept in one type and computed with in another.

    A machine that lacks a type computes in the nearest that it has: int16 in int8 on many CPUs.
    """
    return max(
        SCORE_TOLERANCE.get(kind, SCORE_TOLERANCE_COARSE) for kind in (quantization, compute_type)
    )


def compare_translations(
    fairseq: FairseqBackend,
    exported: CTranslate2Backend,
    sentences: list[Sentence],
    quantization: str,
) -> dict[str, Any]:
    """Translate sentences with both engines, and let both score fairseq's translations.

    Returns:
        for `export.json`: how many sentences, how many translations are identical, and the largest
        difference of the two engines' scores of fairseq's translations.

    Raises:
        UserError: the scores differ by more than the precision of the weights can explain.
    """
    ours, theirs = (
        [hypotheses[0] for hypotheses in next(iter(engine.translate([sentences], Search())))]
        for engine in (fairseq, exported)
    )
    targets = [hypothesis.tokens for hypothesis in ours]
    difference = max(
        abs(a - b)
        for a, b in zip(
            fairseq.scores(sentences, targets), exported.scores(sentences, targets), strict=True
        )
    )
    tolerance = score_tolerance(quantization, exported.engine.compute_type)
    if not difference <= tolerance:
        raise UserError(
            f"the exported model is not the checkpoint: scores of the same translations differ by "
            f"{difference:.3g} (at most {tolerance} with --quantization {quantization})"
        )
    return {
        "num_sentences": len(sentences),
        "num_identical": sum(a.tokens == b.tokens for a, b in zip(ours, theirs, strict=True)),
        "largest_score_difference": difference,
        "tolerance": tolerance,
    }
