"""The four methods together, which none of the papers tried: trained, pruned, folded, exported.

    python -m studies.compose DATA --output DIR [--size small|medium] [--seeds 1 2] [--device cuda]

DATA is a folder of `admin-nmt prepare`. Post-LN, + ADMIN, + RealFormer, + R-Drop, ADMIN + R-Drop and
all three are trained and scored. Then two of them go on: *all three* loses heads by a budget per
kind and is fine-tuned (carried scores cannot be folded away, so it ends there); *ADMIN + R-Drop*
loses as many heads in every layer, is fine-tuned, folded into a plain Transformer, exported to int8
and translates raw text. Written to DIR: `compose.json`, `compose.csv` (BLEU with significance,
parameters, size, seconds), `commands.sh` of every chain. Interrupted, the same command goes on.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from admin_nmt.errors import UserError
from admin_nmt.evaluation.text import read_lines
from admin_nmt.installed import machine
from admin_nmt.json_files import write_json
from studies import chain, steps, study
from studies.chain import Step, step
from studies.measures import bleu_and_chrf, num_bytes, num_parameters, p_value, raw_texts
from studies.steps import FINE_TUNING, PLAIN, RDROP

SIZES = {
    "small": "--encoder-layers 6 --decoder-layers 3 --encoder-embed-dim 128 "
    "--encoder-ffn-embed-dim 256 --max-epoch 16",
    "medium": "--encoder-layers 6 --decoder-layers 6 --encoder-embed-dim 256 "
    "--encoder-ffn-embed-dim 1024 --dropout 0.3 --max-tokens 4096 --max-epoch 40",
}
#: Without ADMIN post-LN does not learn at the higher rate (docs/results/realformer.md).
WITH_ADMIN = "--init-type admin --lr 2e-3 --warmup-updates 500"
WITHOUT = "--init-type default --lr 7e-4 --warmup-updates 1000"
SCORES = "--residual-attention all"
#: Setting -> options; the first is what the others are compared with.
SETTINGS = {
    "post-ln": f"{PLAIN} {WITHOUT}",
    "admin": f"{PLAIN} {WITH_ADMIN}",
    "realformer": f"{PLAIN} {WITHOUT} {SCORES}",
    "rdrop": f"{RDROP} 5 {WITHOUT}",
    "admin-rdrop": f"{RDROP} 5 {WITH_ADMIN}",
    "all": f"{RDROP} 5 {WITH_ADMIN} {SCORES}",
}
#: Shares of the heads that go, by kind: what docs/results/head-pruning.md says each can spare.
BUDGET = "--encoder-self 0.5 --cross 0.25 --decoder-self 0.25"


def training(
    args: argparse.Namespace, name: str, seed: int, folder: Path, more: str = ""
) -> tuple[object, ...]:
    """`fairseq-train` of a setting into `folder`; `more` options win."""
    return steps.training(
        args.data, folder, args.device, seed, SIZES[args.size], SETTINGS[name], args.options, more
    )


def scored(args: argparse.Namespace, name: str, checkpoint: Path, folder: Path) -> Step:
    """`admin-nmt evaluate` of a checkpoint."""
    return steps.scored(
        f"evaluate-{name}", args.data, checkpoint, args.device, folder / f"scores-{name}"
    )


def pruning(
    args: argparse.Namespace, setting: str, seed: int, folder: Path, *options: str
) -> list[Step]:
    """Heads removed by `BUDGET`, before and after fine-tuning."""
    pruned, tuned = folder / "pruned.pt", folder / "fine-tuned"
    return [
        step(
            "prune", "admin-nmt", "prune", args.data, "--path", folder / "train" / "checkpoint_best.pt",
            *study.DEVICES[args.device], *shlex.split(BUDGET), *options, "--output", pruned, "--force",
        ),
        scored(args, "pruned", pruned, folder),
        step(
            "fine-tune",
            *training(args, setting, seed, tuned, f"{FINE_TUNING} {args.fine_tuning_options}"),
            "--finetune-from-model", pruned,
        ),
        scored(args, "fine-tuned", tuned / "checkpoint_best.pt", folder),
    ]  # fmt: skip


def exporting(args: argparse.Namespace, folder: Path) -> list[Step]:
    """Folded into a plain Transformer; exported to int8, raw text translated.

    The export is made from the fine-tuned checkpoint: it folds by itself, and leaves the removed
    heads out where a plain Transformer of fairseq has to carry zeros.
    """
    tuned, exported = folder / "fine-tuned" / "checkpoint_best.pt", folder / "exported"
    folded = folder / "folded.pt"
    source, _ = raw_texts(args.data)
    return [
        step("fold", "admin-nmt", "fold", tuned, "--output", folded, "--force"),
        scored(args, "folded", folded, folder),
        step(
            "export", "admin-nmt", "export", tuned, args.data, "--quantization", "int8", "--force",
            "--output", exported,
        ),
        step(
            "translate", "admin-nmt", "translate", exported, "--input", source, "--force",
            "--device", args.device, "--output", folder / "int8.txt",
        ),
    ]  # fmt: skip


def chain_of(args: argparse.Namespace, setting: str, seed: int) -> list[Step]:
    """The chain of one setting."""
    folder = args.output / f"{setting}-{seed}"
    found = [
        step("train", *training(args, setting, seed, folder / "train")),
        scored(args, "trained", folder / "train" / "checkpoint_best.pt", folder),
    ]
    if setting == "all":
        found += pruning(args, setting, seed, folder)
    elif setting == "admin-rdrop":
        # CTranslate2 takes one number of heads per stack.
        found += [*pruning(args, setting, seed, folder, "--uniform"), *exporting(args, folder)]
    return found


def systems(args: argparse.Namespace, setting: str, seed: int) -> list[dict[str, Any]]:
    """What a chain has reached so far: name, translations, file, seconds of translating."""
    folder = args.output / f"{setting}-{seed}"
    places = {
        "trained": ("evaluate-trained", folder / "train" / "checkpoint_best.pt"),
        "pruned": ("evaluate-pruned", folder / "pruned.pt"),
        "fine-tuned": ("evaluate-fine-tuned", folder / "fine-tuned" / "checkpoint_best.pt"),
        "folded": ("evaluate-folded", folder / "folded.pt"),
        "int8": ("translate", folder / "exported"),
    }
    found = []
    for name, (last, path) in places.items():
        ended = chain.done(folder, last)
        if ended is not None:
            text = folder / f"scores-{name}" / "hypotheses.detok"
            found.append({
                "setting": setting, "seed": seed, "stage": name, "path": path,
                "text": folder / "int8.txt" if name == "int8" else text,
                "seconds": ended["seconds"], "date": ended["date"],
            })  # fmt: skip
    return found


def report(args: argparse.Namespace) -> None:
    """`compose.json`, `compose.csv` and the table."""
    _, target = raw_texts(args.data)
    reference = read_lines(target)
    first = next(iter(SETTINGS))
    rows = []
    for seed in args.seeds:
        baseline: Path | None = None
        for setting in args.settings:
            before: Path | None = baseline
            for system in systems(args, setting, seed):
                if setting == first:
                    baseline = system["text"]
                int8 = system["stage"] == "int8"
                rows.append({
                    "setting": setting, "seed": seed, "stage": system["stage"],
                    **bleu_and_chrf(system["text"], reference),
                    # A trained model against the first setting, a later stage against the one before.
                    "p": None if before is None else p_value(before, system["text"], reference),
                    "parameters": None if int8 else num_parameters(system["path"], args.data),
                    "MB": round(num_bytes(system["path"]) / 1e6, 1) if int8 else None,
                    "seconds": system["seconds"], "date": system["date"],
                })  # fmt: skip
                before = system["text"]
    if not rows:
        raise UserError(f"no results in {args.output} yet")
    write_json(
        args.output / "compose.json",
        {"machine": machine(args.device), "settings": SETTINGS, "rows": rows},
    )
    study.write_table(args.output / "compose.csv", rows)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", type=Path, help="data-bin of admin-nmt prepare")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--device", choices=list(study.DEVICES), default="cpu")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="chains at a time (default: 1)")
    parser.add_argument("--options", default="", help="more options for every training")
    parser.add_argument("--fine-tuning-options", default="", help="more options for fine-tuning")
    parser.add_argument("--report", action="store_true", help="train nothing")
    args = parser.parse_args(arguments)
    args.data, args.output = args.data.resolve(), args.output.resolve()
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chains, report."""
    args = parse_arguments(arguments)
    return study.exit_status(conduct, args)


def conduct(args: argparse.Namespace) -> None:
    """The chains, and the report."""
    raw_texts(args.data)
    if not args.report:
        chains = {(n, seed): chain_of(args, n, seed) for seed in args.seeds for n in args.settings}
        chain.run_all(
            {args.output / f"{name}-{seed}": one for (name, seed), one in chains.items()}, args.jobs
        )
    report(args)


if __name__ == "__main__":
    sys.exit(main())
