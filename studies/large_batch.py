"""Does profiled ADMIN survive large batches as its analytic form does (18L-6L)?

    python -m studies.large_batch DATA --work DIR [--jobs 2]

DATA: the quickstart's. admin-torch reports that at 100L-100L profiled ADMIN trains with 8 x 4,096
tokens an update and fails with 128 x 4,096, where the analytic form O(log n) survives. Here both
train at 18L-6L with `--update-freq` 1 and 16, the same number of updates and otherwise the settings
of the map (`studies.schedule_map`), at the usual peak learning rate and at four times it, which is
the square root of the batch's growth. Written to `--results`: JSON of every run, `large_batch.csv`,
`large_batch.png`.
"""

import argparse
import sys
from typing import Any

from admin_nmt.analysis.plots import plot_panels
from studies import study
from studies.schedule_map import OPTIONS
from studies.study import Run

UPDATES = 600


def run_of(init_type: str, update_freq: int, rate: str) -> Run:
    """One training of the study."""
    return Run(
        name=f"{init_type}-update-freq{update_freq}-lr{rate}",
        options=f"{OPTIONS} --encoder-layers 18 --decoder-layers 6 --init-type {init_type} "
        f"--lr {rate} --warmup-updates 400 --update-freq {update_freq}",
        updates=UPDATES,
        probe_every=200,
        labels={"init_type": init_type, "update_freq": update_freq, "lr": float(rate)},
    )


RUNS = [
    run_of(init_type, update_freq, rate)
    for update_freq, rate in ((1, "5e-4"), (16, "5e-4"), (1, "2e-3"), (16, "2e-3"))
    for init_type in ("admin", "admin-log")
]


def report(args: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    """Table, `large_batch.csv` and the curves."""
    rows = [
        {
            "init_type": result["init_type"], "update_freq": result["update_freq"],
            "lr": result["lr"], "updates": result["updates"],
            "train_ppl": round(study.last_mean(result["train_ppl"]), 2),
            "valid_nll_loss": result["valid_nll_loss"]["values"][-1],
            "position_share": result["position_share"][str(result["updates"])],
            "date": result["date"],
        }
        for result in found
    ]  # fmt: skip
    study.write_table(args.results / "large_batch.csv", rows)
    panels: dict[str, dict[str, Any]] = {}
    for result in found:
        panel = panels.setdefault(f"peak lr {result['lr']:g}", {})
        loss = result["train_nll_loss"]
        label = f"{result['init_type']}, update-freq {result['update_freq']}"
        panel[label] = (loss["updates"], loss["values"])
    path = args.results / "large_batch.png"
    plot_panels(panels, path, xlabel="updates", ylabel="training loss, bits per token")


if __name__ == "__main__":
    sys.exit(study.main(__doc__.splitlines()[0], RUNS, report))
