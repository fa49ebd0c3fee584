"""Scores of one system, each with the signature that says how it was computed.

All of them come from sacreBLEU (Post 2018, "A Call for Clarity in Reporting BLEU Scores"): BLEU
(Papineni et al. 2002), chrF2 (Popovic 2015), chrF2++ (Popovic 2017) and TER (Snover et al. 2006) on
detokenised text, and the two kinds of BLEU that many papers report on tokenised text. `evaluation.comet`
has a learned metric. Never compare scores whose signatures differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from admin_nmt.errors import UsageError, UserError
from admin_nmt.evaluation.text import split_compounds

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

#: Names of the measures on detokenised text, in the order in which they are shown.
METRICS = ("bleu", "chrf", "chrf++", "ter")
TOKENIZED_BLEU = "BLEU (tokenised)"
COMPOUND_SPLIT_BLEU = "BLEU (compound-split)"


@dataclass(frozen=True)
class Score:
    """One figure.

    Attributes:
        name: `BLEU`, `chrF2`, `chrF2++`, `TER`, `TOKENIZED_BLEU`, `COMPOUND_SPLIT_BLEU` or `COMET`.
        score: between 0 and 100, except TER, which may exceed 100 and of which less is better, and
            COMET, which may exceed both ends.
        signature: the record of how it was computed, in sacreBLEU's form.
        detail: for BLEU, its n-gram precisions, brevity penalty and lengths; else empty.
    """

    name: str
    score: float
    signature: str
    detail: str = ""


def build_metrics(
    names: Sequence[str] = METRICS,
    *,
    lowercase: bool = False,
    tokenize: str | None = None,
    target: str = "",
) -> "dict[str, Metric]":
    """sacreBLEU's metric objects, with the settings of its own command line.

    Args:
        names: some of `METRICS`.
        lowercase: ignore case in BLEU and chrF (TER always does, unless told otherwise).
        tokenize: sacreBLEU's tokeniser for BLEU; None is its default for the target language: `zh`,
            `ja-mecab` and `ko-mecab` for Chinese, Japanese and Korean, `13a` for all others.
        target: language code, with or without a region (`zh_CN`); empty where it is not known.

    Raises:
        UsageError: an unknown name or tokeniser.
        UserError: the tokeniser needs something that is not installed.
    """
    from sacrebleu.metrics import BLEU, CHRF, TER

    if tokenize is not None and tokenize not in BLEU.TOKENIZERS:
        known = ", ".join(sorted(BLEU.TOKENIZERS))
        raise UsageError(f"--tokenize {tokenize}: unknown tokeniser; choose from {known}")
    # sacreBLEU knows languages by their codes without region or script.
    language = target.replace("_", "-").split("-")[0].lower()
    metrics: dict[str, Metric] = {}
    for name in names:
        if name == "bleu":
            try:
                metrics["BLEU"] = BLEU(lowercase=lowercase, tokenize=tokenize, trg_lang=language)
            except (ImportError, RuntimeError, OSError) as error:
                reason = " ".join(str(error).split())
                name = tokenize or f"(the default for {target})"
                raise UserError(f"--tokenize {name} cannot be used here: {reason}") from error
        elif name == "chrf":
            metrics["CHRF"] = CHRF(lowercase=lowercase)
        elif name == "chrf++":
            metrics["CHRF++"] = CHRF(lowercase=lowercase, word_order=2)
        elif name == "ter":
            metrics["TER"] = TER()
        else:
            raise UsageError(f"unknown metric {name}; choose from {', '.join(METRICS)}")
    return metrics


def detokenized_scores(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    more_references: Sequence[Sequence[str]] = (),
    lowercase: bool = False,
    tokenize: str | None = None,
    target: str = "",
) -> list[Score]:
    """sacreBLEU, chrF2, chrF2++ and TER of plain text.

    Equal to `sacrebleu REF... -i HYP -m bleu chrf ter`, and for chrF2++ to `-m chrf
    --chrf-word-order 2`.

    Args:
        hypotheses: N detokenised sentences.
        references: their N references, untouched text.
        more_references: further references, N sentences each. BLEU counts an n-gram as often as the
            reference that has it most often, and takes the length of the one nearest in length;
            chrF and TER take for each sentence the reference that scores best.
        lowercase: as in `build_metrics`.
        tokenize: as in `build_metrics`.
        target: as in `build_metrics`.
    """
    metrics = build_metrics(lowercase=lowercase, tokenize=tokenize, target=target)
    sets = [references, *more_references]
    return [_corpus_score(metric, hypotheses, sets) for metric in metrics.values()]


def tokenized_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """BLEU of text as it is tokenised already, as `multi-bleu.perl` and `fairseq-score` define it.

    Tokens are what stands between spaces, nothing is smoothed (0 if no 4-gram matches). The figure
    depends on the tokeniser, so it is comparable only with one from the same preparation.

    Args:
        hypotheses: N tokenised sentences, BPE joined.
        references: their N references, tokenised alike.
    """
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    score = _corpus_score(metric, hypotheses, [references])
    return Score(TOKENIZED_BLEU, score.score, score.signature, score.detail)


def compound_split_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """`tokenized_bleu` after splitting hyphenated words (fairseq's `compound_split_bleu.sh`).

    Papers on WMT14 En-De from "Attention Is All You Need" on report it. It is higher than the other
    figures by about half a point or more, because the parts of a compound count by themselves.
    """
    score = tokenized_bleu(
        [split_compounds(line) for line in hypotheses],
        [split_compounds(line) for line in references],
    )
    return Score(
        COMPOUND_SPLIT_BLEU, score.score, f"{score.signature}|compounds:split", score.detail
    )


def _corpus_score(
    metric: "Metric", hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> Score:
    result = metric.corpus_score(hypotheses, references)
    detail = getattr(result, "_verbose", "")
    return Score(result.name, result.score, metric.get_signature().format(), detail.strip())


def score_table(scores: Sequence[Score]) -> str:
    """The scores as a table of text: name, figure, signature."""
    from tabulate import tabulate

    rows = [(score.name, f"{score.score:.2f}", score.signature) for score in scores]
    return tabulate(
        rows,
        headers=("measure", "score", "signature"),
        colalign=("left", "right", "left"),
        disable_numparse=True,
    )
