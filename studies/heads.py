"""Which heads can go, by kind, and which policy chooses them best (6L-6L, 8 heads: 144 heads).

    python -m studies.heads DATA --output DIR [--size small|medium] [--device cuda]

DATA is a folder of `admin-nmt prepare`. One model is trained to convergence with a checkpoint every
few epochs. Measured on the validation set: importance, curves by kind in order of importance,
re-ranked after each step, and at random; curves of earlier checkpoints. Then six policies take the
same number of heads, are scored on the test set, fine-tuned and scored again, and last BLEU is
measured without each head:

- `global`: all kinds ranked together, norm 1 in every layer (as the paper does);
- `kind_norm`: the same with norm 1 over each kind;
- `raw`: the same with scores as measured;
- `rerank`: as `global`, importance measured again after each step;
- `kind`: the same share of each kind, ranked within it;
- `budget`: shares by kind chosen on the curves of the validation set (`budgets` below).

Written to DIR: `heads.json`, `heads.csv`, the plots of each command, `commands.sh`. Interrupted, the
same command goes on.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from admin_nmt.errors import UserError
from admin_nmt.evaluation.text import read_lines
from admin_nmt.installed import machine
from admin_nmt.json_files import read_json, write_json
from admin_nmt.pruning.policies import num_to_remove
from studies import chain, steps, study
from studies.chain import Step, step
from studies.measures import bleu_and_chrf, num_parameters, p_value, raw_texts
from studies.steps import FINE_TUNING, PLAIN

SIZES = {
    "small": "--encoder-layers 6 --decoder-layers 6 --encoder-embed-dim 128 "
    "--encoder-ffn-embed-dim 256 --max-epoch 24",
    "medium": "--encoder-layers 6 --decoder-layers 6 --encoder-embed-dim 512 "
    "--encoder-ffn-embed-dim 1024 --dropout 0.3 --max-tokens 4096 --max-epoch 60",
}
TRAINING = (
    f"{PLAIN} --init-type admin --encoder-attention-heads 8 --decoder-attention-heads 8 "
    "--save-interval 4 --keep-last-epochs 100"
)
#: Share of all heads that the policies take.
FRACTION = 0.4
STEP = 0.1
#: Importance measured again, after each step and of each checkpoint, on a sample of the training text.
AGAIN = ("--max-batches", "25")
#: Letter of a kind -> the option of `admin-nmt prune` that takes its share.
OPTIONS = {"E": "--encoder-self", "A": "--cross", "D": "--decoder-self"}
#: (share of heads removed, BLEU), the share grows from 0.
Points = Sequence[tuple[float, float]]


def budgets(curves: Mapping[str, Points], counts: Mapping[str, int], total: int) -> dict[str, int]:
    """How many heads of each kind go, when each kind's curve is known and `total` are to go.

    Greedy: from no heads removed, always the step along one curve that costs the least BLEU per
    head; where a step gains BLEU it is taken first. The last step is cut to `total`.

    Args:
        curves: kind -> BLEU over the share of its heads removed, others whole.
        counts: kind -> number of its heads.
        total: heads to remove.

    Raises:
        UserError: the curves end before `total` heads are gone.
    """
    at = dict.fromkeys(curves, 0)
    taken = dict.fromkeys(curves, 0)
    while sum(taken.values()) < total:
        steps = {}
        for kind, points in curves.items():
            if at[kind] + 1 < len(points):
                (_, bleu), (share, below) = points[at[kind] : at[kind] + 2]
                heads = num_to_remove(share, counts[kind]) - taken[kind]
                # A step too short to remove a head costs nothing and is passed.
                steps[kind] = ((bleu - below) / heads if heads else 0.0, heads)
        if not steps:
            raise UserError(f"the curves end at {sum(taken.values())} heads, {total} are to go")
        kind = min(steps, key=lambda letter: steps[letter][0])
        at[kind] += 1
        taken[kind] += min(steps[kind][1], total - sum(taken.values()))
    return taken


def curves_of(sweep: Mapping[str, Any], order: str) -> dict[str, Points]:
    """Group -> its curve in `sweep.json`, of one order."""
    return {
        curve["group"]: [(point["fraction"], point["bleu"]) for point in curve["points"]]
        for curve in sweep["curves"]
        if curve["order"] == order
    }


def removed_at(sweep: Mapping[str, Any], order: str, fraction: float) -> list[str]:
    """The heads that a curve of all kinds has removed at `fraction`."""
    for curve in sweep["curves"]:
        if curve["group"] == "EAD" and curve["order"] == order:
            for point in curve["points"]:
                if abs(point["fraction"] - fraction) < 1e-9:
                    return point["removed"]
    raise UserError(f"no curve in order {order} of all kinds at {fraction:g}")


def training(args: argparse.Namespace, folder: Path, more: str = "") -> tuple[object, ...]:
    """`fairseq-train` of the model into `folder`; `more` options win."""
    return steps.training(
        args.data, folder, args.device, args.seed, SIZES[args.size], TRAINING, args.options, more
    )


def evaluation(args: argparse.Namespace, name: str, checkpoint: Path) -> Step:
    """`admin-nmt evaluate` of a checkpoint on the test set."""
    return steps.scored(
        f"evaluate-{name}", args.data, checkpoint, args.device, args.output / f"scores-{name}"
    )


def measuring(args: argparse.Namespace) -> list[Step]:
    """Training and what is measured on the validation set."""
    best, out = args.output / "train" / "checkpoint_best.pt", args.output
    common = (
        *study.DEVICES[args.device], "--beam", "1", "--gen-subset", "valid",
        *shlex.split(args.measuring_options),
    )  # fmt: skip
    return [
        step("train", *training(args, args.output / "train")),
        evaluation(args, "whole", best),
        step(
            "importance", "admin-nmt", "importance", args.data, "--path", best,
            *study.DEVICES[args.device], "--output", out / "importance.json",
            "--plot", out / "importance.png",
        ),
        step(
            "sweep", "admin-nmt", "prune-sweep", args.data, "--path", best, *common, "--step", STEP,
            "--rerank", *AGAIN, "--importance", out / "importance.json", "--output", out / "sweep",
        ),
    ]  # fmt: skip


def one_by_one(args: argparse.Namespace) -> Step:
    """BLEU without each head."""
    return step(
        "ablate", "admin-nmt", "ablate", args.data, "--path",
        args.output / "train" / "checkpoint_best.pt", *study.DEVICES[args.device], "--beam", "1",
        "--gen-subset", "valid", "--experiments", "one-head",
        *shlex.split(args.measuring_options), "--output", args.output / "ablation",
    )  # fmt: skip


def during_training(args: argparse.Namespace) -> Step:
    """Curves of the checkpoints of all epochs that were kept (figure 5 of the paper)."""
    epochs = sorted(
        (args.output / "train").glob("checkpoint[0-9]*.pt"),
        key=lambda path: int(path.stem.removeprefix("checkpoint")),
    )
    return step(
        "sweep-during-training", "admin-nmt", "prune-sweep", args.data, "--path", *epochs,
        *study.DEVICES[args.device], "--beam", "1", "--gen-subset", "valid", "--step", 2 * STEP,
        "--groups", "EAD", "--random-orders", "0", *AGAIN, *shlex.split(args.measuring_options),
        "--output", args.output / "sweep-during-training",
    )  # fmt: skip


def policies(args: argparse.Namespace) -> dict[str, list[str]]:
    """Name -> options of `admin-nmt prune`, once the curves are there."""
    importance = read_json(args.output / "importance.json")
    sweep = read_json(args.output / "sweep" / "sweep.json")
    counts = {kind: sum(layout) for kind, layout in layout_of(importance).items()}
    total = num_to_remove(FRACTION, sum(counts.values()))
    chosen = budgets(
        {kind: points for kind, points in curves_of(sweep, "importance").items() if kind in counts},
        counts,
        total,
    )
    return {
        "global": ["--fraction", str(FRACTION)],
        "kind_norm": ["--fraction", str(FRACTION), "--normalize", "kind"],
        "raw": ["--fraction", str(FRACTION), "--normalize", "none"],
        "rerank": ["--heads", ",".join(removed_at(sweep, "rerank", FRACTION))],
        "kind": shares(even(counts, total), counts),
        "budget": shares(chosen, counts),
    }


def even(counts: Mapping[str, int], total: int) -> dict[str, int]:
    """`total` heads, the same share of each kind; the largest remainders are rounded up."""
    wanted = {kind: total * count / sum(counts.values()) for kind, count in counts.items()}
    taken = {kind: int(value) for kind, value in wanted.items()}
    by_remainder = sorted(wanted, key=lambda kind: taken[kind] - wanted[kind])
    for kind in by_remainder[: total - sum(taken.values())]:
        taken[kind] += 1
    return taken


def shares(taken: Mapping[str, int], counts: Mapping[str, int]) -> list[str]:
    """The options of `admin-nmt prune` that remove this many heads of each kind."""
    return [
        word
        for kind, count in taken.items()
        for word in (OPTIONS[kind], repr(count / counts[kind]))
    ]


def layout_of(importance: Mapping[str, Any]) -> dict[str, list[int]]:
    """Kind -> heads of each layer, as `admin-nmt importance` writes them."""
    return importance["measurements"][0]["layout"]


def policy_steps(args: argparse.Namespace, name: str, options: Sequence[str]) -> list[Step]:
    """Pruned, scored, fine-tuned, scored."""
    pruned, tuned = args.output / f"{name}.pt", args.output / f"{name}-fine-tuned"
    order = () if "--heads" in options else ("--importance", args.output / "importance.json")
    return [
        step(
            f"prune-{name}", "admin-nmt", "prune", args.data, "--path",
            args.output / "train" / "checkpoint_best.pt", *study.DEVICES[args.device], *options,
            *order, "--output", pruned, "--force",
        ),
        evaluation(args, name, pruned),
        step(
            f"fine-tune-{name}",
            *training(args, tuned, f"{FINE_TUNING} --save-interval 1 {args.fine_tuning_options}"),
            "--finetune-from-model", pruned,
        ),
        evaluation(args, f"{name}-fine-tuned", tuned / "checkpoint_best.pt"),
    ]  # fmt: skip


def report(args: argparse.Namespace) -> None:
    """`heads.json`, `heads.csv` and the table: the policies on the test set."""
    _, target = raw_texts(args.data)
    reference = read_lines(target)
    rows = []
    stages = ["whole", *(f"{n}{s}" for n in policies(args) for s in ("", "-fine-tuned"))]
    for name in stages:
        if chain.done(args.output, f"evaluate-{name}") is None:
            continue
        policy, _, tuned = name.partition("-")
        text = args.output / f"scores-{name}" / "hypotheses.detok"
        base = args.output / f"scores-global{'-fine-tuned' if tuned else ''}" / "hypotheses.detok"
        compared = policy not in ("whole", "global") and base.exists()
        checkpoint = "train/checkpoint_best.pt" if policy == "whole" else f"{policy}.pt"
        rows.append({
            "policy": policy, "fine_tuned": bool(tuned),
            **bleu_and_chrf(text, reference),
            "p against global": p_value(base, text, reference) if compared else None,
            "parameters": num_parameters(args.output / checkpoint, args.data), "seed": args.seed,
        })  # fmt: skip
    write_json(
        args.output / "heads.json",
        {"machine": machine(args.device), "policies": policies(args), "rows": rows},
    )
    study.write_table(args.output / "heads.csv", rows)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", type=Path, help="data-bin of admin-nmt prepare")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--device", choices=list(study.DEVICES), default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--options", default="", help="more options for every training")
    parser.add_argument("--fine-tuning-options", default="", help="more options for fine-tuning")
    parser.add_argument("--measuring-options", default="", help="more for ablate and prune-sweep")
    args = parser.parse_args(arguments)
    args.data, args.output = args.data.resolve(), args.output.resolve()
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chain, report."""
    args = parse_arguments(arguments)
    return study.exit_status(conduct, args)


def conduct(args: argparse.Namespace) -> None:
    """The chain, policy by policy, and the report."""
    raw_texts(args.data)
    chain.run(measuring(args), args.output)
    chain.run([during_training(args)], args.output)
    for name, options in policies(args).items():
        chain.run(policy_steps(args, name, options), args.output)
    chain.run([one_by_one(args)], args.output)
    report(args)


if __name__ == "__main__":
    sys.exit(main())
