"""What a method brings on real text: train settings with several seeds, score, test, draw.

    python -m studies.effects rdrop DATA --output DIR [--seeds 1 2] [--jobs 2]
    python -m studies.effects bpe-dropout DATA --output DIR
    python -m studies.effects realformer DATA --output DIR --options "--dropout 0.2"

DATA is a folder of `admin-nmt prepare`. Every run is a `fairseq-train` process of its own with one
thread, validated with BLEU after every second epoch and stopped when that has not improved
`--patience` times; with a higher `--max-epoch` those that were not stopped go on, and a lower one is
refused. Its best checkpoint translates the test set. A setting passes the first one where its best BLEU
so far stays above the other's to its own end, by update and by minute. Interrupted, the same command goes
on where it stopped; `--report` only reports on what there is, without `--max-epoch` on each run's longest
training. Written to DIR: `results.md` (table and tests), `results.json`, `results.csv`, and curves of
training and validation loss, and of BLEU by update and by minute.
"""

import argparse
import math
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from admin_nmt.analysis.plots import plot_panels
from admin_nmt.analysis.training_log import TrainingLog, read_log
from admin_nmt.errors import UserError
from admin_nmt.evaluation.text import read_lines
from admin_nmt.files import atomic_write
from admin_nmt.installed import machine
from admin_nmt.json_files import read_json, write_json
from studies import chain, steps, study
from studies.chain import Step, step
from studies.measures import p_value
from studies.steps import PLAIN, PRE_LN, RDROP

#: Of every run, in its folder.
LOG = "train.log"
BY_UPDATE, BY_MINUTE = "BLEU by update", "by minute"
#: Title of a panel -> name in fairseq's log.
CURVES = {
    "training loss": "train_nll_loss",
    "validation loss": "valid_nll_loss",
    BY_UPDATE: "valid_bleu",
}
#: Of `results.csv`, a row per run.
COLUMNS = (
    "test_bleu", "p", "best_valid_bleu", "valid_nll_loss", "updates", "best_update", "minutes",
    "passes_update", "passes_minute",
)  # fmt: skip
#: Epochs at the most, where nothing else is said.
MAX_EPOCH = 60
#: What fairseq says when BLEU has stopped rising, and what `host/early_stopping.py` says when such a
#: training is started again, as with a higher `--max-epoch`.
STOPPED = re.compile(r"early stop since|nothing left to train: \d+ validations in a row")
#: Places and values.
Curve = tuple[Sequence[float], Sequence[float]]
_SMALL = "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 256 --encoder-ffn-embed-dim 512"
#: Study -> size of its models.
SIZES = {
    "rdrop": _SMALL,
    "bpe-dropout": _SMALL,
    "realformer": "--encoder-layers 6 --decoder-layers 3 --encoder-embed-dim 128 --encoder-ffn-embed-dim 256",
}
#: Study -> setting -> options; the first setting is what the others are compared with.
STUDIES = {
    "rdrop": {
        "ls": PLAIN,
        "a1": f"{RDROP} 1",
        "a3": f"{RDROP} 3",
        "a5": f"{RDROP} 5",
        "a5-k5": f"{RDROP} 5 --rdrop-interval 5",
    },
    "bpe-dropout": {
        "ls": PLAIN,
        "ls-dropout": f"{PLAIN} --bpe-dropout 0.1",
        "a5": f"{RDROP} 5",
        "a5-dropout": f"{RDROP} 5 --bpe-dropout 0.1",
    },
    "realformer": {
        "admin": f"{PLAIN} --init-type admin",
        "post-ln": f"{PLAIN} --init-type default",
        "pre-ln": f"{PLAIN} {PRE_LN}",
        "realformer": f"{PLAIN} --init-type default --residual-attention all",
        "realformer-admin": f"{PLAIN} --init-type admin --residual-attention all",
    },
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("data", metavar="DATA", type=Path)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="default: all of the study")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", choices=list(study.DEVICES), default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument(
        "--max-epoch",
        type=int,
        help=f"default: {MAX_EPOCH}; with --report what each run has reached",
    )
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--options", default="", help="more options for every training")
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args(arguments)
    args.data, args.output = args.data.resolve(), args.output.resolve()
    if not args.report:
        args.max_epoch = args.max_epoch or MAX_EPOCH
    args.settings = args.settings or list(STUDIES[args.study])
    unknown = set(args.settings) - set(STUDIES[args.study])
    if unknown:
        parser.error(f"{args.study} has no setting {', '.join(sorted(unknown))}")
    return args


def chain_of(args: argparse.Namespace, name: str, seed: int) -> list[Step]:
    """One run to `--max-epoch`, and its translations.

    A higher `--max-epoch` makes other steps: `fairseq-train` goes on from its last checkpoint, unless
    BLEU had stopped rising.
    """
    folder = args.output / f"{name}-{seed}"
    words = steps.training(
        args.data, folder, args.device, seed, SIZES[args.study], STUDIES[args.study][name],
        ("--max-epoch", args.max_epoch, "--patience", args.patience, "--log-file", folder / LOG),
        args.options,
    )  # fmt: skip
    return [
        step(f"train-{args.max_epoch}", *words),
        steps.scored(
            f"evaluate-{args.max_epoch}", args.data, folder / "checkpoint_best.pt", args.device, folder / "scores"
        ),
    ]  # fmt: skip


def points(log: TrainingLog, name: str) -> Curve:
    """A curve of the log; empty if it has none."""
    found = log.curves.get(name)
    return (found.updates, found.values) if found else ((), ())


def minutes(log: TrainingLog) -> dict[int, float]:
    """Updates at the ends of epochs -> minutes of training so far, without validation."""
    total = 0.0
    found: dict[int, float] = {}
    for update, seconds in zip(
        *points(log, "train_train_wall"), strict=True
    ):  # of each epoch alone
        total += seconds / 60
        found[int(update)] = total
    return found


def length(args: argparse.Namespace, folder: Path) -> int:
    """`--max-epoch`; without it the longest training of this run that has ended, 0 before."""
    if args.max_epoch is not None:
        return args.max_epoch
    return _longest((folder / "done").glob("train-*.json"))


def _longest(files: Iterable[Path]) -> int:
    """The greatest N of files `train-N`, 0 of none."""
    return max((int(path.stem.removeprefix("train-")) for path in files), default=0)


def ended(folder: Path, max_epoch: int) -> str | None:
    """Why a run's training is over: its BLEU had stopped rising, or its length; None before."""
    name = f"train-{max_epoch}"
    if chain.done(folder, name) is None:
        return None
    # Not `LOG`, which trainings to other lengths share.
    log = chain.log_of(folder, name).read_text(encoding="utf-8", errors="replace")
    return "converged" if STOPPED.search(log) else str(max_epoch)


def is_translated(folder: Path, max_epoch: int) -> bool:
    """Whether a run's translations are there, of a training of this length: those of a shorter one lie in
    the same place."""
    return chain.done(folder, f"evaluate-{max_epoch}") is not None


def summary(args: argparse.Namespace, folder: Path, log: TrainingLog) -> dict[str, Any]:
    """What one run that has been validated reached."""
    updates, bleu = points(log, "valid_bleu")
    best = max(range(len(bleu)), key=lambda place: (bleu[place], place))  # fairseq keeps the last
    max_epoch = length(args, folder)
    trained = chain.done(folder, f"train-{max_epoch}") or {}
    found: dict[str, Any] = {
        "command": trained.get("command"), "date": trained.get("date"),
        "done": ended(folder, max_epoch), "updates": updates[-1], "best_update": updates[best],
        "best_valid_bleu": bleu[best], "valid_nll_loss": points(log, "valid_nll_loss")[1][best],
        "minutes": minutes(log).get(int(updates[best])),
    }  # fmt: skip
    if is_translated(folder, max_epoch):
        found["test"] = read_json(folder / "scores" / "scores.json")
    return found


def test_bleu(run: dict[str, Any]) -> float | None:
    """sacreBLEU of the test set, None before it was translated."""
    for score in run.get("test", {}).get("scores", []):
        if score["name"] == "BLEU":
            return score["score"]
    return None


def against_first(args: argparse.Namespace, name: str, seed: int) -> float | None:
    """p of BLEU against the first setting with the same seed; None until both have been translated, and
    where one has been trained for longer."""
    folders = [args.output / f"{setting}-{seed}" for setting in (args.settings[0], name)]
    lengths = [length(args, folder) for folder in folders]
    translated = all(map(is_translated, folders, lengths))
    if name == args.settings[0] or not translated or lengths[0] != lengths[1]:
        return None
    reference = read_lines(read_json(folders[0] / "scores" / "scores.json")["reference"])
    base, other = (folder / "scores" / "hypotheses.detok" for folder in folders)
    return p_value(base, other, reference)


def crossing(curve: Curve, base: Curve) -> float | None:
    """Where the best value so far of `curve` passes that of `base` for good, as far as `curve` goes; None:
    never."""

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
    panels: dict[str, dict[str, Any]] = {title: {} for title in (*CURVES, BY_MINUTE)}
    for name in args.settings:
        runs = {}
        for seed in args.seeds:
            folder = args.output / f"{name}-{seed}"
            if not (folder / LOG).exists():
                continue
            log = read_log(folder / LOG)
            if "valid_bleu" not in log.curves:
                continue
            found = summary(args, folder, log)
            found["test_bleu"], found["p"] = test_bleu(found), against_first(args, name, seed)
            add_curves(panels, f"{name}-{seed}", log)
            for key, title in (("passes_update", BY_UPDATE), ("passes_minute", BY_MINUTE)):
                base = panels[title].get(f"{args.settings[0]}-{seed}")
                found[key] = None
                if base is not None and name != args.settings[0]:
                    found[key] = crossing(panels[title][f"{name}-{seed}"], base)
            runs[seed] = found
        results[name] = {
            "options": STUDIES[args.study][name], "machine": machine(args.device), "runs": runs
        }  # fmt: skip
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
    with atomic_write(args.output / "results.md") as stream:
        stream.write(table + "\n")
    write_json(args.output / "results.json", results)
    cells = [
        {"setting": name, "seed": seed} | {key: run.get(key) for key in COLUMNS}
        for name, result in results.items()
        for seed, run in result["runs"].items()
    ]
    if cells:
        study.write_csv(args.output / "results.csv", cells)
    for title, curves in panels.items():
        if curves:
            path = args.output / f"{title.replace(' ', '-')}.png"
            xlabel = "minutes of training" if title == BY_MINUTE else "updates"
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


def add_curves(panels: dict[str, dict[str, Any]], label: str, log: TrainingLog) -> None:
    """Add the curves of one run to the panels."""
    for title, name in CURVES.items():
        panels[title][label] = points(log, name)
    time = minutes(log)
    by_minute = [
        (time[int(update)], value)
        for update, value in zip(*panels[BY_UPDATE][label], strict=True)
        if update in time
    ]
    panels[BY_MINUTE][label] = tuple(zip(*by_minute, strict=True)) if by_minute else ((), ())


def require_not_shorter(args: argparse.Namespace) -> None:
    """Refuse a `--max-epoch` beyond which a run has been begun: its curves and best checkpoint are of the
    longer training, even where the shorter one has ended before.

    Raises:
        UserError: naming the run.
    """
    for name in args.settings:
        for seed in args.seeds:
            logs = args.output / f"{name}-{seed}" / "logs"
            longest = _longest(logs.glob("train-*.log"))
            if longest > args.max_epoch:
                raise UserError(
                    f"{logs}/train-{longest}.log is of a training to epoch {longest}: give --max-epoch "
                    f"{longest} or more, or another --output"
                )


def conduct(args: argparse.Namespace) -> None:
    """Train, translate, report."""
    if args.max_epoch is not None:
        require_not_shorter(args)
    if not args.report:
        chain.run_all(
            {
                args.output / f"{name}-{seed}": chain_of(args, name, seed)
                for seed in args.seeds
                for name in args.settings
            },
            args.jobs,
        )
    report(args)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    args = parse_arguments(arguments)
    return study.exit_status(conduct, args)


if __name__ == "__main__":
    sys.exit(main())
