"""Who trains at which depth on real text: six residual schemes, three depths.

    python -m studies.depth DATA --work DIR [--jobs 2] [--minutes 60]

DATA: `admin-nmt prepare multi30k --bpe-tokens 6000 --joined-dictionary` (all 29,000 pairs). All runs
have equal tokens and updates; each scheme is trained with two peak learning rates and shown at the
better one (lower validation loss); ADMIN, post-LN and pre-LN get a second seed at 60L-12L. Written
to `--results`: JSON and translations of every run, `depth.csv` with tests of significance against
post-LN and pre-LN of the same depth and seed, and plots: validation loss and share of the encoder
output that differs by position over updates, gradient norm by layer at the start and near update
1,000, and omega before and after training.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from admin_nmt.analysis.plots import plot_panels
from admin_nmt.errors import UserError
from admin_nmt.evaluation.significance import compare_systems
from admin_nmt.evaluation.text import read_lines
from studies import schedule_map, study
from studies.measures import raw_texts
from studies.steps import PRE_LN
from studies.study import Run

DEPTHS = {"6L-6L": (6, 6), "18L-6L": (18, 6), "60L-12L": (60, 12)}
SCHEMES = {
    "admin": "--init-type admin",
    "post-ln": "--init-type default",
    "pre-ln": PRE_LN,
    "admin-log": "--init-type admin-log",
    "deepnorm": "--init-type deepnorm",
    "rezero": "--init-type rezero",
}
#: Those with which the others are compared.
BASELINES = ("post-ln", "pre-ln")
RATES = ("1e-3", "5e-4")
UPDATES = 4000
#: At which `depth.csv` tells the share that differs by position.
SHARE_UPDATES = (1, 1000, 2000, 3000, UPDATES)
#: The warm-up is what profiled ADMIN needs: where the learning rate rises by more than about 3e-7 an
#: update while the decoder still learns frequencies of words, its encoder collapses first.
OPTIONS = f"{schedule_map.OPTIONS} --warmup-updates 3000"


def run_of(scheme: str, depth: str, rate: str, seed: int) -> Run:
    """One training of the study."""
    encoder_layers, decoder_layers = DEPTHS[depth]
    return Run(
        name=f"{depth.lower()}-{scheme}-lr{rate}-seed{seed}",
        options=f"{OPTIONS} {SCHEMES[scheme]} --lr {rate} --encoder-layers {encoder_layers} "
        f"--decoder-layers {decoder_layers}",
        updates=UPDATES,
        seed=seed,
        translate=True,
        labels={"scheme": scheme, "depth": depth, "lr": float(rate)},
    )


#: The headline first; the second seeds last, at the rate that was better for each of these schemes.
RUNS = [
    *(
        run_of(scheme, depth, rate, 1)
        for depth in ("60L-12L", "18L-6L", "6L-6L")
        for rate in RATES
        for scheme in SCHEMES
    ),
    *(run_of(scheme, "60L-12L", RATES[0], 2) for scheme in ("admin", *BASELINES)),
]


def final_loss(result: Mapping[str, Any]) -> float:
    """Validation loss at the end, in bits per token; infinite where it is not a number."""
    value = result["valid_nll_loss"]["values"][-1]
    return value if math.isfinite(value) else math.inf


def chosen(found: Sequence[dict[str, Any]]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """(depth, scheme, seed) -> the result at the better peak learning rate.

    A second seed is shown at the rate that was better with the first.
    """
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for result in found:
        place = (result["depth"], result["scheme"])
        if result["seed"] == 1 and (
            place not in best or final_loss(result) < final_loss(best[place])
        ):
            best[place] = result
    shown = {}
    for result in found:
        place = (result["depth"], result["scheme"])
        if place in best and result["lr"] == best[place]["lr"]:
            shown[(*place, result["seed"])] = result
    return shown


def p_values(
    args: argparse.Namespace, shown: Mapping[tuple[str, str, int], dict[str, Any]]
) -> dict[tuple[str, str, int], dict[str, float]]:
    """Approximate randomisation of BLEU against each baseline of the same depth and seed."""
    reference = read_lines(raw_texts(args.data)[1])
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for (depth, scheme, seed), result in shown.items():
        for baseline in BASELINES:
            base = shown.get((depth, baseline, seed))
            if base is None or scheme == baseline:
                continue
            systems = {
                name: read_lines(args.results / f"{r['name']}.hyp")
                for name, r in (("base", base), ("other", result))
            }
            tested = compare_systems(systems, reference, metrics=["bleu"])
            p = tested.results[1].p_randomisation
            assert p is not None
            found.setdefault((depth, scheme, seed), {})[baseline] = p
    return found


def other_peak(
    found: Sequence[dict[str, Any]], shown: Mapping[tuple[str, str, int], dict[str, Any]]
) -> dict[tuple[str, str, int], dict[str, Any]]:
    """(depth, scheme, seed) -> the result at the peak learning rate that is not shown."""
    return {
        place: result
        for result in found
        if (place := (result["depth"], result["scheme"], result["seed"])) in shown
        and result["lr"] != shown[place]["lr"]
    }


def rows_of(
    args: argparse.Namespace,
    found: Sequence[dict[str, Any]],
    shown: Mapping[tuple[str, str, int], dict[str, Any]],
) -> list[dict[str, Any]]:
    """The rows of `depth.csv`: each scheme at its better peak, and what the other one gave."""
    tests, others = p_values(args, shown), other_peak(found, shown)
    return [
        {
            "depth": depth, "scheme": scheme, "seed": seed, "lr": result["lr"],
            "BLEU": result["test"]["BLEU"]["score"], "chrF2": result["test"]["chrF2"]["score"],
            **{f"p against {b}": tests.get((depth, scheme, seed), {}).get(b) for b in BASELINES},
            "valid_nll_loss": final_loss(result),
            **{f"share at {u}": result["position_share"][str(u)] for u in SHARE_UPDATES},
            "other lr": other["lr"] if (other := others.get((depth, scheme, seed))) else None,
            "other BLEU": other["test"]["BLEU"]["score"] if other else None,
            "other valid_nll_loss": final_loss(other) if other else None,
            "updates": result["updates"], "date": result["date"],
        }
        for (depth, scheme, seed), result in shown.items()
    ]  # fmt: skip


def draw(shown: Mapping[tuple[str, str, int], dict[str, Any]], folder: Path) -> None:
    """All plots, first seed."""
    first = {place[:2]: result for place, result in shown.items() if place[2] == 1}
    by_update: dict[str, dict[str, Any]] = {
        "validation-loss": {}, "share": {}, "gradient-start": {}, "gradient-later": {}, "omega": {}
    }  # fmt: skip
    for (depth, scheme), result in first.items():
        loss, share = result["valid_nll_loss"], result["position_share"]
        panel = by_update["validation-loss"].setdefault(depth, {})
        panel[scheme] = (loss["updates"], loss["values"])
        panel = by_update["share"].setdefault(depth, {})
        panel[scheme] = ([int(update) for update in share], list(share.values()))
        norms = list(result["gradient_norms"].values())
        for name, values in (("gradient-start", norms[0]), ("gradient-later", norms[1])):
            encoder = [norm for place, norm in values.items() if place.startswith("encoder")]
            panel = by_update[name].setdefault(depth, {})
            panel[scheme] = (list(range(1, len(encoder) + 1)), encoder)
        for when, omegas in zip(("before", "after"), result["omegas"].values(), strict=True):
            means = [mean for name, (mean, _) in omegas.items() if name.startswith("encoder")]
            if means:
                panel = by_update["omega"].setdefault(depth, {})
                panel[f"{scheme}, {when}"] = (list(range(1, len(means) + 1)), means)
    axes = {
        "validation-loss": ("updates", "validation loss, bits per token"),
        "share": ("updates", "share that differs by position"),
        "gradient-start": ("encoder layer", "gradient norm after update 1"),
        "gradient-later": ("encoder layer", "gradient norm near update 1,000"),
        "omega": ("encoder sublayer", "mean of omega"),
    }
    for name, panels in by_update.items():
        if panels:
            xlabel, ylabel = axes[name]
            plot_panels(panels, folder / f"{name}.png", xlabel=xlabel, ylabel=ylabel)


def report(args: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    """`depth.csv`, the plots and the table."""
    shown = chosen(found)
    if not shown:
        raise UserError(
            f"no result with seed 1 in {args.results} yet: it chooses the rate at which others are shown"
        )
    study.write_table(args.results / "depth.csv", rows_of(args, found, shown))
    draw(shown, args.results)


if __name__ == "__main__":
    sys.exit(study.main(__doc__.splitlines()[0], RUNS, report))
