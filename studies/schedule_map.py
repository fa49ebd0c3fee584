"""Which peak learning rates and warm-ups leave the plateau at 60L-12L.

    python -m studies.schedule_map DATA --work DIR [--jobs 2] [--minutes 60]

DATA: the quickstart's (`quickstart-output/prepared/data-bin`). For profiled ADMIN, admin-log and
post-LN, each pair of peak learning rate and warm-up is trained for the same number of updates, with
the quickstart's size, data and batches. Written to `--results`: a JSON file per run, `map.csv`, and
`map.png`, a heat map of the final training perplexity with the share of the encoder output that
differs by position in each field.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from admin_nmt.analysis.plots import save_figure
from studies import study
from studies.study import Run

RATES = ("5e-4", "1e-3", "1.5e-3")
WARM_UPS = (200, 1000, 2000)
INITS = {"admin": "ADMIN, profiled", "admin-log": "ADMIN, O(log n)", "default": "post-LN"}
UPDATES = 2000
#: The quickstart's models but for depth, schedule and length.
OPTIONS = (
    "--arch admin_transformer --encoder-embed-dim 64 --decoder-embed-dim 64 --encoder-ffn-embed-dim 128 "
    "--decoder-ffn-embed-dim 128 --encoder-attention-heads 4 --decoder-attention-heads 4 "
    "--share-all-embeddings --dropout 0 --optimizer radam --adam-betas '(0.9, 0.98)' "
    "--clip-norm 1.0 --lr-scheduler inverse_sqrt --warmup-init-lr 1e-7 "
    "--criterion admin_label_smoothed_cross_entropy --label-smoothing 0.1 --max-tokens 1000 "
    "--max-tokens-valid 4000"
)


def field_run(init_type: str, rate: str, warm_up: int) -> Run:
    """One field of the map."""
    return Run(
        name=f"{init_type}-lr{rate}-warmup{warm_up}",
        options=f"{OPTIONS} --encoder-layers 60 --decoder-layers 12 --init-type {init_type} "
        f"--lr {rate} --warmup-updates {warm_up}",
        updates=UPDATES,
        labels={"init_type": init_type, "lr": float(rate), "warmup_updates": warm_up},
    )


#: In order of worth: the middle of the map and its corners for profiled ADMIN first.
RUNS = [
    field_run(init_type, rate, warm_up)
    for init_type in INITS
    for warm_up in (1000, 2000, 200)
    for rate in RATES
]


def fields(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `map.csv`: one per run, each initialisation by warm-up and rate."""
    rows = [
        {
            "init_type": result["init_type"], "lr": result["lr"],
            "warmup_updates": result["warmup_updates"], "updates": result["updates"],
            "train_ppl": round(study.last_mean(result["train_ppl"]), 2),
            "valid_nll_loss": result["valid_nll_loss"]["values"][-1],
            "position_share": result["position_share"][str(result["updates"])],
            "seed": result["seed"], "date": result["date"], "machine": result["machine"],
        }
        for result in found
    ]  # fmt: skip
    inits = list(INITS)
    return sorted(rows, key=lambda r: (inits.index(r["init_type"]), r["warmup_updates"], r["lr"]))


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel per initialisation; colour: perplexity, text: perplexity and share."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(INITS) + 1, 3.6), layout="constrained")
    image: Any = None
    grid = figure.subplots(1, len(INITS), squeeze=False)[0]
    for axes, (init_type, title) in zip(grid, INITS.items(), strict=True):
        cells = {(r["warmup_updates"], r["lr"]): r for r in rows if r["init_type"] == init_type}
        table = [
            [cells.get((w, float(lr)), {}).get("train_ppl", float("nan")) for lr in RATES]
            for w in WARM_UPS
        ]
        image = axes.imshow(table, norm=LogNorm(1.5, 100), cmap="viridis_r", origin="lower")
        for y, warm_up in enumerate(WARM_UPS):
            for x, rate in enumerate(RATES):
                cell = cells.get((warm_up, float(rate)))
                text, color = "not run", "black"
                if cell:
                    text = f"{cell['train_ppl']:.2f}\n{cell['position_share']:.2g}"
                    color = "white" if cell["train_ppl"] > 8 else "black"  # on dark, on light
                axes.text(x, y, text, ha="center", va="center", color=color, fontsize=9)
        axes.set(title=title, xlabel="peak learning rate", ylabel="warm-up updates")
        axes.set_xticks(range(len(RATES)), RATES)
        axes.set_yticks(range(len(WARM_UPS)), WARM_UPS)
    figure.colorbar(image, ax=grid, label=f"training perplexity after {UPDATES:,} updates")
    save_figure(figure, path)


def report(args: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    """`map.csv`, `map.png` and a table."""
    rows = fields(found)
    study.write_table(args.results / "map.csv", rows)
    draw(rows, args.results / "map.png")


if __name__ == "__main__":
    sys.exit(study.main(__doc__.splitlines()[0], RUNS, report))
