"""What a method brings on real text: train settings with several seeds, score, test, draw.

    python -m studies.effects rdrop DATA --output DIR [--seeds 1 2] [--jobs 2]
    python -m studies.effects realformer DATA --output DIR --options "--dropout 0.2"

DATA is a folder of `admin-nmt prepare`. Every run is a `fairseq-train` process of its own with one
thread, validated with BLEU after every second epoch and stopped when that has not improved
`--patience` times; with a higher `--max-epoch` those that were not stopped go on. Its best
checkpoint translates the test set. A setting passes the first one where its best BLEU so far stays
above the other's, by update and by minute. Interrupted, the same command goes on where it stopped;
`--report` only reports on what there is. Written to DIR: `results.md` (table and tests),
`results.json`, `results.csv`, and curves of training and validation loss, and of BLEU by update and by minute.
"""

import argparse
import json
import logging
import math
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from admin_nmt.analysis.plots import plot_panels
from admin_nmt.analysis.training_log import read_curve
from admin_nmt.errors import UserError
from admin_nmt.evaluation.significance import compare_systems
from admin_nmt.evaluation.text import read_lines
from studies.study import DEVICES, ENVIRONMENT, write_csv

COMMON = [
    "--eval-bleu-args",
    '{"beam": 1, "max_len_a": 1.2, "max_len_b": 10}',
    *"--bf16 --arch admin_transformer --share-all-embeddings --encoder-attention-heads 4 "
    "--decoder-attention-heads 4 --dropout 0.2 --optimizer radam --adam-betas (0.9,0.98) --lr 2e-3 "
    "--lr-scheduler inverse_sqrt --warmup-updates 500 --warmup-init-lr 1e-7 --label-smoothing 0.1 "
    "--max-tokens 1500 --num-workers 0 --log-format json --log-interval 50 --keep-last-epochs 1 "
    "--validate-interval 2 --eval-bleu --eval-bleu-detok moses --eval-bleu-remove-bpe "
    "--best-checkpoint-metric bleu --maximize-best-checkpoint-metric".split(),
]
#: Of `results.csv`, a row per run.
COLUMNS = (
    "test_bleu", "p", "best_valid_bleu", "valid_nll_loss", "updates", "best_update", "minutes",
    "passes_update", "passes_minute",
)  # fmt: skip
#: Places and values.
Curve = tuple[Sequence[float], Sequence[float]]
#: Study -> size of its models.
SIZES = {
    "rdrop": "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 256 --encoder-ffn-embed-dim 512",
    "realformer": "--encoder-layers 6 --decoder-layers 3 --encoder-embed-dim 128 --encoder-ffn-embed-dim 256",
}
PLAIN = "--criterion admin_label_smoothed_cross_entropy"
RDROP = "--criterion label_smoothed_cross_entropy_rdrop --rdrop-alpha"
PRE_LN = "--init-type default --encoder-normalize-before --decoder-normalize-before"
#: Study -> setting -> options; the first setting is what the others are compared with.
STUDIES = {
    "rdrop": {
        "ls": PLAIN,
        "a1": f"{RDROP} 1",
        "a3": f"{RDROP} 3",
        "a5": f"{RDROP} 5",
        "a5-k5": f"{RDROP} 5 --rdrop-interval 5",
    },
    "realformer": {
        "admin": f"{PLAIN} --init-type admin",
        "post-ln": f"{PLAIN} --init-type default",
        "pre-ln": f"{PLAIN} {PRE_LN}",
        "realformer": f"{PLAIN} --init-type default --residual-attention all",
        "realformer-admin": f"{PLAIN} --init-type admin --residual-attention all",
    },
}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="default: all of the study")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", choices=list(DEVICES), default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--max-epoch", type=int, default=60)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--options", default="", help="more options for every training")
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args()
    args.settings = args.settings or list(STUDIES[args.study])
    unknown = set(args.settings) - set(STUDIES[args.study])
    if unknown:
        parser.error(f"{args.study} has no setting {', '.join(sorted(unknown))}")
    return args


def program(*command: object, log: Path | None = None) -> None:
    """Run a program beside this Python; its output is added to `log`."""
    path = Path(sys.executable).parent / str(command[0])
    stream: Any = log.open("a") if log else subprocess.DEVNULL
    try:
        subprocess.run(
            [path, *map(str, command[1:])], check=True, stdout=stream, stderr=stream,
            env=os.environ | ENVIRONMENT,
        )  # fmt: skip
    finally:
        if log:
            stream.close()


def is_trained(folder: Path, max_epoch: int) -> bool:
    """Whether the run in `folder` reached `max_epoch`, or stopped before because BLEU did not rise."""
    done = folder / "done"
    if not done.exists():
        return False
    text = done.read_text()
    return text == "converged" or int(text) >= max_epoch


def train_and_translate(args: argparse.Namespace, name: str, seed: int) -> None:
    """One run to its end, and its translations; steps that are done are skipped."""
    folder = args.output / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if not is_trained(folder, args.max_epoch):
        shutil.rmtree(folder / "scores", ignore_errors=True)  # of an earlier, shorter training
        program(
            "fairseq-train", args.data, *DEVICES[args.device], *COMMON, *SIZES[args.study].split(),
            *shlex.split(STUDIES[args.study][name]),
            "--seed", seed, "--max-epoch", args.max_epoch, "--patience", args.patience,
            "--save-dir", folder, *shlex.split(args.options), log=folder / "train.log",
        )  # fmt: skip
        stopped = "early stop since" in (folder / "train.log").read_text()
        (folder / "done").write_text("converged" if stopped else str(args.max_epoch))
    if not (folder / "scores" / "scores.json").exists():
        program(
            "admin-nmt", "evaluate", args.data, "--path", folder / "checkpoint_best.pt",
            *DEVICES[args.device], "--output", folder / "scores", log=folder / "evaluate.log",
        )  # fmt: skip


def minutes(log: Path) -> dict[int, float]:
    """Updates at the ends of epochs -> minutes of training so far, without validation."""
    curve = read_curve(log, "train_train_wall")  # of each epoch alone
    total, found = 0.0, {}
    for update, seconds in zip(curve.updates, curve.values, strict=True):
        total += seconds / 60
        found[update] = total
    return found


def summary(folder: Path) -> dict[str, Any] | None:
    """What one run reached; None before its first validation."""
    try:
        bleu = read_curve(folder / "train.log", "valid_bleu")
        loss = read_curve(folder / "train.log", "valid_nll_loss")
        time = minutes(folder / "train.log")
    except UserError:
        return None
    best = max(range(len(bleu.values)), key=bleu.values.__getitem__)
    done = folder / "done"
    found = {
        "done": done.read_text() if done.exists() else None, "updates": bleu.updates[-1],
        "best_update": bleu.updates[best], "best_valid_bleu": bleu.values[best],
        "valid_nll_loss": loss.values[best], "minutes": time.get(bleu.updates[best]),
    }  # fmt: skip
    scores = folder / "scores" / "scores.json"
    if scores.exists():
        found["test"] = json.loads(scores.read_text())
    return found


def test_bleu(run: dict[str, Any]) -> float | None:
    """sacreBLEU of the test set, None before it was translated."""
    for score in run.get("test", {}).get("scores", []):
        if score["name"] == "BLEU":
            return score["score"]
    return None


def p_value(args: argparse.Namespace, name: str, seed: int) -> float | None:
    """Approximate randomisation of BLEU against the first setting with the same seed."""
    folders = [args.output / f"{setting}-{seed}" / "scores" for setting in (args.settings[0], name)]
    if name == args.settings[0] or not all((f / "scores.json").exists() for f in folders):
        return None
    reference = json.loads((folders[0] / "scores.json").read_text())["reference"]
    systems = {str(folder): read_lines(folder / "hypotheses.detok") for folder in folders}
    found = compare_systems(systems, read_lines(reference), metrics=["bleu"])
    return found.results[1].p_randomisation


def crossing(curve: Curve, base: Curve) -> float | None:
    """Where the best value so far of `curve` passes that of `base` for good; None: never."""

    def best(points: Curve, until: float) -> float:
        return max((y for x, y in zip(*points, strict=True) if x <= until), default=-math.inf)

    found = None
    for x in reversed(curve[0]):
        if best(curve, x) <= best(base, x):
            break
        found = x
    return found


def report(args: argparse.Namespace) -> None:
    """Table, JSON and plots of all runs that have been validated."""
    rows: list[list[Any]] = []
    results: dict[str, dict[str, Any]] = {}
    panels: dict[str, dict[str, Any]] = {
        title: {} for title in ("training loss", "validation loss", "BLEU by update", "by minute")
    }
    for name in args.settings:
        runs = {}
        for seed in args.seeds:
            folder = args.output / f"{name}-{seed}"
            found = summary(folder)
            if found is None:
                continue
            found["test_bleu"], found["p"] = test_bleu(found), p_value(args, name, seed)
            add_curves(panels, f"{name}-{seed}", folder / "train.log")
            for key, title in (("passes_update", "BLEU by update"), ("passes_minute", "by minute")):
                base = panels[title].get(f"{args.settings[0]}-{seed}")
                found[key] = None
                if base is not None and name != args.settings[0]:
                    found[key] = crossing(panels[title][f"{name}-{seed}"], base)
            runs[seed] = found
        results[name] = {"options": STUDIES[args.study][name], "runs": runs}
        rows.append(row(name, list(runs.values())))
    headers = [
        "setting",
        "test BLEU",
        "mean",
        "p",
        "valid BLEU",
        "at update",
        "minutes",
        "passes at update",
        "at minute",
        "epochs, updates",
    ]
    table = tabulate(rows, headers=headers, tablefmt="github", floatfmt=".2f")
    (args.output / "results.md").write_text(table + "\n")
    (args.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    cells = [
        {"setting": name, "seed": seed} | {key: run.get(key) for key in COLUMNS}
        for name, result in results.items()
        for seed, run in result["runs"].items()
    ]
    if cells:
        write_csv(args.output / "results.csv", cells)
    for title, curves in panels.items():
        if curves:
            path = args.output / f"{title.replace(' ', '-')}.png"
            xlabel = "minutes of training" if title == "by minute" else "updates"
            ylabel = (
                "BLEU of valid, greedy" if title.startswith(("BLEU", "by")) else "bits per token"
            )
            plot_panels({title: curves}, path, xlabel=xlabel, ylabel=ylabel)
    print(table)


def row(name: str, runs: list[dict[str, Any]]) -> list[Any]:
    """One line of the table."""

    def each(key: str, form: str) -> str:
        return ", ".join("-" if run[key] is None else format(run[key], form) for run in runs)

    scores = [run["test_bleu"] for run in runs if run["test_bleu"] is not None]
    mean = statistics.fmean(scores) if scores else None
    ended = ", ".join(f"{run['done'] or 'running'}, {run['updates']}" for run in runs)
    return [
        name, each("test_bleu", ".2f"), mean, each("p", ".3f"), each("best_valid_bleu", ".2f"),
        each("best_update", "d"), each("minutes", ".1f"), each("passes_update", "d"), each("passes_minute", ".1f"), ended,
    ]  # fmt: skip


def add_curves(panels: dict[str, dict[str, Any]], label: str, log: Path) -> None:
    """Add the curves of one run to the panels."""
    for title, name in (
        ("training loss", "train_nll_loss"),
        ("validation loss", "valid_nll_loss"),
        ("BLEU by update", "valid_bleu"),
    ):
        curve = read_curve(log, name)
        panels[title][label] = (curve.updates, curve.values)
    time = minutes(log)
    points = [
        (time[update], value)
        for update, value in zip(*panels["BLEU by update"][label], strict=True)
        if update in time
    ]
    panels["by minute"][label] = tuple(zip(*points, strict=True)) if points else ((), ())


def main() -> None:
    """Train, translate, report."""
    args = parse_arguments()
    logging.disable(logging.INFO)
    if not args.report:
        runs = [(name, seed) for seed in args.seeds for name in args.settings]
        with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(runs), unit=" runs") as bar:
            waiting = [pool.submit(train_and_translate, args, *run) for run in runs]
            for future in waiting:
                future.result()
                bar.update()
    report(args)


if __name__ == "__main__":
    main()
