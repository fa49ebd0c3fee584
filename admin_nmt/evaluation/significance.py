"""Is one system better than another, or is it chance? Paired tests on one test set.

Two tests, both from sacreBLEU:

- paired bootstrap resampling (Koehn 2004, "Statistical Significance Tests for Machine Translation
  Evaluation"), which also gives each system's mean and 95 % confidence interval;
- approximate randomisation (Riezler and Maxwell 2005, "On Some Pitfalls in Automatic Evaluation and
  Significance Testing for MT").

The null hypothesis is that both systems are equally good; a small p-value speaks against it. With
several systems each is compared with the baseline and p-values are not corrected for their number.

One figure is not sacreBLEU's: where a system has the baseline's score, p = 1, because every trial differs
by zero or more. sacreBLEU counts the trials whose difference exceeds the observed one. Where the measure
does not see what differs (case in TER, white space in chrF, anything in two systems of BLEU 0) that is none
of them, and systems with one score would seem to differ at p = 1 / (trials + 1).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from admin_nmt.errors import UsageError, require_at_least_one
from admin_nmt.evaluation.scoring import build_metrics

#: Measures that are compared unless others are asked for.
COMPARED = ("bleu", "chrf", "ter")


@dataclass(frozen=True)
class SystemResult:
    """One system under one metric.

    Attributes:
        metric: `BLEU`, `chrF2`, `chrF2++` or `TER`.
        system: the name given to the system.
        score: on the whole test set.
        difference: `score` minus the baseline's; 0.0 for the baseline.
        mean: of the scores of the bootstrap resamples.
        ci: half of the width of their 95 % interval: the system scores `mean` +- `ci`.
        p_bootstrap: of paired bootstrap against the baseline; None for the baseline.
        p_randomisation: of approximate randomisation; None for the baseline.
    """

    metric: str
    system: str
    score: float
    difference: float
    mean: float
    ci: float
    p_bootstrap: float | None
    p_randomisation: float | None


@dataclass(frozen=True)
class Comparison:
    """Results per metric, baseline first, and the signatures: metric -> {test: signature}."""

    results: list[SystemResult]
    signatures: dict[str, dict[str, str]]


def compare_systems(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    *,
    more_references: Sequence[Sequence[str]] = (),
    metrics: Sequence[str] = COMPARED,
    lowercase: bool = False,
    tokenize: str | None = None,
    target: str = "",
    num_bootstrap: int = 1000,
    num_randomisation: int = 10000,
    seed: int = 12345,
) -> Comparison:
    """Both paired tests of every further system against the first.

    Equal to `sacrebleu REF... -i A B --paired-bs` and `--paired-ar` with SACREBLEU_SEED=`seed`, but
    for systems with the baseline's score (see above).

    Args:
        systems: name -> N detokenised sentences; two at least, the first is the baseline.
        references: N reference sentences.
        more_references: further references, as in `scoring.detokenized_scores`.
        metrics: some of `scoring.METRICS`.
        lowercase: as in `scoring.build_metrics`.
        tokenize: as in `scoring.build_metrics`.
        target: as in `scoring.build_metrics`.
        num_bootstrap: resamples.
        num_randomisation: trials.
        seed: of both tests; positive.

    Raises:
        UsageError: a number that is not positive, an unknown metric, or fewer than two systems.
    """
    numbers = {
        "--paired-bs-n": num_bootstrap,
        "--paired-ar-n": num_randomisation,
        "--seed": seed,  # sacreBLEU takes seed 0 for "no seed"
    }
    for option, value in numbers.items():
        require_at_least_one(option, value)
    if len(systems) < 2:
        raise UsageError("a comparison needs at least two systems")
    build = {"names": metrics, "lowercase": lowercase, "tokenize": tokenize, "target": target}
    sets = [references, *more_references]
    bootstrap = _paired_test("bs", systems, sets, num_bootstrap, seed, build)
    randomisation = _paired_test("ar", systems, sets, num_randomisation, seed, build)
    return _combine(bootstrap, randomisation)


def _paired_test(
    test: str,
    systems: Mapping[str, Sequence[str]],
    references: Sequence[Sequence[str]],
    num_samples: int,
    seed: int,
    build: dict[str, Any],
) -> tuple[dict, dict]:
    """Run sacreBLEU's `PairedTest`: ({metric: signature}, {metric: [result per system]})."""
    from sacrebleu.significance import PairedTest

    with _sacrebleu_seed(seed):
        signatures, results = PairedTest(
            list(systems.items()),
            build_metrics(**build),
            references,
            test_type=test,
            n_samples=num_samples,
        )()
    return signatures, results


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """The environment variable is the only way to hand sacreBLEU a seed."""
    before = os.environ.get("SACREBLEU_SEED")
    os.environ["SACREBLEU_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SACREBLEU_SEED"]
        else:
            os.environ["SACREBLEU_SEED"] = before


def _combine(bootstrap: tuple[dict, dict], randomisation: tuple[dict, dict]) -> Comparison:
    """Put what both tests say about a system into one row."""
    (bs_signatures, bs), (ar_signatures, ar) = bootstrap, randomisation
    results = []
    for metric in bs_signatures:
        baseline = bs[metric][0].score
        for number, (name, bs_result, ar_result) in enumerate(
            zip(bs["System"], bs[metric], ar[metric], strict=True)
        ):
            is_equal = number > 0 and bs_result.score == baseline
            row = SystemResult(
                metric=metric,
                system=name,
                score=float(bs_result.score),
                difference=float(bs_result.score - baseline),
                mean=float(bs_result.mean),
                ci=float(bs_result.ci),
                p_bootstrap=1.0 if is_equal else bs_result.p_value,
                p_randomisation=1.0 if is_equal else ar_result.p_value,
            )
            results.append(row)
    signatures = {
        metric: {
            "paired_bootstrap": bs_signatures[metric].format(),
            "approximate_randomisation": ar_signatures[metric].format(),
        }
        for metric in bs_signatures
    }
    return Comparison(results, signatures)


def comparison_table(comparison: Comparison) -> str:
    """The comparison as text: one row per metric and system, then the signatures."""
    from tabulate import tabulate

    rows = [
        (
            result.metric,
            result.system,
            f"{result.score:.2f}",
            "baseline" if result.p_bootstrap is None else f"{result.difference:+.2f}",
            f"{result.mean:.2f} +- {result.ci:.2f}",
            _p_value(result.p_bootstrap),
            _p_value(result.p_randomisation),
        )
        for result in comparison.results
    ]
    headers = ("metric", "system", "score", "difference", "mean +- 95% CI", "p (bs)", "p (ar)")
    columns = ("left", "left", "right", "right", "right", "right", "right")
    table = tabulate(rows, headers=headers, colalign=columns, disable_numparse=True)
    signatures = [
        f"{metric} {test}: {signature}"
        for metric, tests in comparison.signatures.items()
        for test, signature in tests.items()
    ]
    return "\n".join([table, "", *signatures])


def _p_value(p: float | None) -> str:
    return "" if p is None else f"{p:.4f}"
