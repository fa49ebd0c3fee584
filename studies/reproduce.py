"""One command per claim: prepare data, train, measure, plot, and keep the commands that did it.

    bash scripts/reproduce.sh NAME [--size small|medium|full] [--corpus DIR] [--device cpu|cuda]

NAME is a study (`--help` lists them) or `all`. Everything goes to `--output`: the prepared data, and a
folder per study with its JSON and CSV files, plots, logs and `commands.sh`. Run again, the command
goes on where it stopped. `small` fits two CPU cores, `medium` one GPU for about half an hour a
training; `full` names the papers' own settings on IWSLT14 and WMT14 with what they take, and trains
nothing: these have not been run here.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from admin_nmt.errors import UsageError
from studies import chain, study
from studies.chain import Step, step

REPOSITORY = Path(__file__).parents[1]
#: Size -> where its studies run, unless `--device` says otherwise.
SIZES = {"small": "cpu", "medium": "cuda", "full": "cuda"}


@dataclass(frozen=True)
class Full:
    """A published experiment.

    Attributes:
        command: of the repository.
        hardware: that the paper used, and its time.
    """

    command: str
    hardware: str


#: What a study costs at a size; measured where docs/results has it, else an estimate by update times.
COSTS = {
    ("depth", "small"): "three 18L-6L trainings, about 15 minutes of one core each",
    ("realformer", "small"): "four trainings, about 80 minutes of one core each (estimate)",
    ("rdrop", "small"): "four trainings, 30 to 45 minutes of one core each (estimate)",
    ("heads", "small"): "one training of about 60 minutes of one core, curves as long again",
    ("compose", "small"): "six trainings a seed, of 30 to 65 minutes of one core, two fine-tunings",
    ("speed", "small"): "about 15 minutes of two cores, nothing else running",
    ("depth", "medium"): "60L-12L, D = 512, on one GPU: 30 minutes",
    ("realformer", "medium"): "four trainings, not measured",
    ("rdrop", "medium"): "four trainings, not measured",
    ("heads", "medium"): "one training and its curves, not measured",
    ("compose", "medium"): "six trainings for each seed, not measured",
    ("speed", "medium"): "10 minutes of one GPU",
}
FULL = {
    "depth": [
        Full("bash scripts/wmt14-en-de.sh", "60L-12L: 8 GPUs (published: 4), time not known"),
        Full("bash scripts/wmt14-en-fr.sh", "60L-12L: 16 GPUs, time not known"),
    ],
    "realformer": [
        Full(
            "ADMIN_NMT_RECIPE=wmt14_en_de_18l_18l_realformer bash scripts/wmt14-en-de.sh",
            "18L-18L: 23 hours on 4 GPUs",
        ),
        Full(
            "ADMIN_NMT_RECIPE=wmt14_en_fr_60l_12l_realformer bash scripts/wmt14-en-fr.sh",
            "60L-12L: 72 hours on 16 A100",
        ),
    ],
    "rdrop": [
        Full(
            "ADMIN_NMT_RECIPE=iwslt14_de_en_rdrop bash scripts/iwslt14-de-en.sh",
            "300,000 updates, about 8 hours on one GPU",
        ),
        Full(
            "ADMIN_NMT_RECIPE=wmt14_en_de_big_rdrop bash scripts/wmt14-en-de.sh",
            "Transformer big: 8 GPUs, days",
        ),
    ],
    "heads": [
        Full(
            "ADMIN_NMT_RECIPE=iwslt14_de_en_heads bash scripts/iwslt14-de-en.sh",
            "50,000 updates: hours on one GPU; then admin-nmt prune-sweep of its epochs",
        ),
        Full(
            "admin-nmt ablate DATA --path model.pt",
            "model.pt: fairseq's wmt14.en-fr.joined-dict.transformer, which the paper prunes; one GPU",
        ),
    ],
    "compose": [
        Full("bash scripts/iwslt14-de-en.sh", "one GPU, hours a training, then studies.compose"),
    ],
    "speed": [Full("bash scripts/gpu-check.sh --minutes 60", "one H100")],
}
NAMES = tuple(FULL)
#: For R-Drop's and RealFormer's small studies.
SHORT = "--seeds 1 2 --max-epoch 16 --patience 4"


def studies_of(name: str, args: argparse.Namespace, data: Path, folder: Path) -> list[Step]:
    """The programs of a study at `--size small` or `medium`.

    Raises:
        UsageError: the study does not run on this device at this size.
    """
    device = ("--device", args.device)
    jobs = ("--jobs", args.jobs)
    medium = args.size == "medium"
    if name == "depth" and medium:
        return [
            step(
                "gpu-check-train", "bash", REPOSITORY / "scripts" / "gpu-check.sh", "--stage", "train",
                "--minutes", 30, "--data", data, *device, "--output", folder / "gpu-check",
            )
        ]  # fmt: skip
    if name == "depth":
        runs = [f"18l-6l-{scheme}-lr1e-3-seed1" for scheme in ("admin", "post-ln", "pre-ln")]
        return [
            step(
                name, "python", "-m", "studies.depth", data, "--work", folder / "work", "--results",
                folder, *device, *jobs, "--only", *runs,
            )
        ]  # fmt: skip
    if name in ("realformer", "rdrop"):
        settings = {"realformer": ("admin", "realformer-admin"), "rdrop": ("ls", "a5")}[name]
        larger = "--encoder-layers 6 --decoder-layers 6 --encoder-embed-dim 256 --max-tokens 4096"
        return [
            step(
                name, "python", "-m", "studies.effects", name, data, "--output", folder, *device,
                *jobs, *shlex.split(SHORT), "--settings", *settings,
                *(("--options", larger) if medium else ()),
            )
        ]  # fmt: skip
    if name == "heads":
        return [
            step(name, "python", "-m", "studies.heads", data, "--output", folder, *device,
                 "--size", args.size)
        ]  # fmt: skip
    if name == "compose":
        return [
            step(name, "python", "-m", "studies.compose", data, "--output", folder, *device, *jobs,
                 "--size", args.size)
        ]  # fmt: skip
    if medium:
        return [
            step(
                "gpu-check-speed", "bash", REPOSITORY / "scripts" / "gpu-check.sh", "--stage", "speed",
                "--minutes", 10, "--data", data, *device, "--output", folder / "gpu-check",
            )
        ]  # fmt: skip
    if args.device != "cpu":
        raise UsageError(
            f"speed --size {args.size} measures CPU cores: leave --device {args.device} out, or give "
            "--size medium"
        )
    measured: dict[str, tuple[object, ...]] = {
        "train_step": (data, "--max-tokens", 1000),
        "rdrop": (data, "--shape", "3-3-256", "--batches", 3),
        "residual_attention": (data, "--shape", "6-6-256", "--batches", 4, "--max-tokens", 2000),
        "pruned_speed": (),
    }
    return [
        step(
            name.replace("_", "-"), "python", REPOSITORY / "benchmarks" / f"{name}.py", *words,
            "--json", folder / f"{name}.json",
        )
        for name, words in measured.items()
    ]  # fmt: skip


def preparation(args: argparse.Namespace, folder: Path) -> list[Step]:
    """The data of `--corpus`: Multi30k's archives, or train, valid and test files of any text."""
    corpus = args.corpus
    if not corpus.is_dir():
        raise UsageError(f"--corpus {corpus} is not a folder")
    common = ("--joined-dictionary", "--output", folder)
    if (corpus / "test_2016_flickr.en.gz").exists():
        words: tuple[object, ...] = ("multi30k", "--archives", corpus, "--bpe-tokens", 6000)
    else:
        words = (
            "custom", "--corpus", corpus, "--source-lang", args.source_lang,
            "--target-lang", args.target_lang, "--bpe-tokens", 8000,
        )  # fmt: skip
    return [step("prepare", "admin-nmt", "prepare", *words, *common)]


def describe_full(names: Sequence[str]) -> str:
    """What `--size full` would run."""
    lines = ["The papers' own settings; they have not been run here."]
    for name in names:
        lines += [f"{name}: {one.command}    ({one.hardware})" for one in FULL[name]]
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="reproduce.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name} {size}: {cost}" for (name, size), cost in COSTS.items()),
    )
    parser.add_argument("name", metavar="NAME", choices=[*NAMES, "all"], help=", ".join(NAMES))
    parser.add_argument("--size", choices=SIZES, default="small", help="default: small")
    parser.add_argument(
        "--corpus",
        type=Path,
        metavar="DIR",
        help="archives of Multi30k, or train.*, valid.*, test.*",
    )
    parser.add_argument("--source-lang", "-s", default="de", metavar="LANG", help="default: de")
    parser.add_argument("--target-lang", "-t", default="en", metavar="LANG", help="default: en")
    parser.add_argument(
        "--device", choices=list(study.DEVICES), help="default: cpu with --size small, else cuda"
    )
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default: 2)")
    parser.add_argument("--output", type=Path, default=Path("reproduced"), metavar="DIR")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    args = parser.parse_args(arguments)
    args.device = args.device or SIZES[args.size]
    args.corpus = args.corpus and args.corpus.resolve()
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare, run the studies."""
    args = parse_arguments(arguments)
    if args.size == "full":
        print(describe_full(NAMES if args.name == "all" else (args.name,)))
        return 0
    return study.exit_status(conduct, args)


def conduct(args: argparse.Namespace) -> None:
    """The studies of a size that runs here."""
    if args.corpus is None:
        raise UsageError("--corpus DIR is needed: archives of Multi30k, or your own text")
    names = NAMES if args.name == "all" else (args.name,)
    output = args.output.resolve()
    data = output / "prepared" / "data-bin"
    plans = {"prepared": preparation(args, output / "prepared")}
    plans |= {name: studies_of(name, args, data, output / name) for name in names}
    for name, steps in plans.items():
        if name in NAMES:
            print(f"{name}: {COSTS[name, args.size]}")
        if args.dry_run:
            print("\n".join(f"  {shlex.join(one.command)}" for one in steps))
        else:
            chain.run(steps, output / name)


if __name__ == "__main__":
    sys.exit(main())
