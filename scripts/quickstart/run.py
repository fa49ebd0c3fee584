"""The quickstart: corpus, two trainings, translation, scores and plots, resumable at every step.

Run it through `scripts/quickstart.sh`, which installs what it needs first.
"""

import argparse
import datetime
import logging
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

import admin_nmt_autoload

admin_nmt_autoload.defer_registration = True

from admin_nmt.analysis.training_log import read_curve  # noqa: E402
from admin_nmt.errors import UserError  # noqa: E402
from admin_nmt.files import make_directory  # noqa: E402
from admin_nmt.json_files import read_json, write_json  # noqa: E402
from admin_nmt.programs import threads  # noqa: E402
from corpus.grammar import write_corpus  # noqa: E402
from trainings import (  # noqa: E402
    BIN,
    Model,
    Training,
    estimate_minutes,
    follow,
    mean_of_last,
    run,
    run_once,
)

#: Of the generated corpus, whatever the seed of the models.
CORPUS_SEED = 1


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="quickstart.sh",
        description="Train a deep ADMIN Transformer for translation on this machine's CPU, and "
        "beside it a plain post-LN Transformer that differs in nothing else.",
    )
    parser.add_argument(
        "--layers",
        metavar="ENC-DEC",
        help="encoder and decoder layers of both models (default 60-12; with --corpus 6-3)",
    )
    parser.add_argument(
        "--init-type",
        default="admin",
        choices=("admin", "admin-log", "admin-const", "deepnorm", "rezero"),
        help="residual scheme of the first model (default admin, profiled); the other is post-LN",
    )
    parser.add_argument(
        "--corpus",
        metavar="DIR",
        type=Path,
        help="your own text: train.SRC, train.TGT, valid.*, test.* (plain or .gz) in place of the "
        "generated corpus",
    )
    for side, lang in (("source", "de"), ("target", "en")):
        parser.add_argument(
            f"--{side}-lang",
            metavar="LANG",
            default=lang,
            help=f"{side} language of --corpus (default {lang})",
        )
    parser.add_argument(
        "--updates",
        metavar="N",
        type=int,
        help="training updates of each model (default 1400; with --corpus 3000)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=1, help="random seed of the models (default 1)"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="where everything goes (default quickstart-output); the same folder resumes",
    )
    parser.add_argument(
        "--pairs",
        metavar="N",
        type=int,
        default=20000,
        help="training sentences of the generated corpus (default 20000)",
    )
    parser.add_argument(
        "--skip-baseline", action="store_true", help="train no post-LN Transformer beside it"
    )
    args = parser.parse_args()
    args.layers = args.layers or ("6-3" if args.corpus else "60-12")
    if not re.fullmatch(r"[1-9]\d*-[1-9]\d*", args.layers):
        parser.error(f"--layers {args.layers}: give encoder and decoder layers such as 60-12")
    args.layers = tuple(int(number) for number in args.layers.split("-"))
    for option in ("updates", "pairs"):
        number = getattr(args, option)
        if number is not None and number < 1:
            parser.error(f"--{option} {number}: give a number above 0")
    args.output = args.output or Path("quickstart-output" + ("-corpus" if args.corpus else ""))
    return args


def say(text: str) -> None:
    """A heading on the terminal."""
    print(f"\n== {text}", flush=True)


def prepare(args: argparse.Namespace) -> None:
    """Corpus, tokenisation, BPE and binarisation, into `prepared` of the output folder."""
    corpus = args.corpus
    if corpus is None:
        corpus = args.output / "corpus"
        if not (corpus / "train.en").exists():  # the file that is written last
            say("making a German-English corpus from our own grammar")
            held_out = min(500, max(args.pairs // 40, 10))
            write_corpus(
                corpus,
                num_train=args.pairs,
                num_valid=min(300, held_out),
                num_test=held_out,
                seed=CORPUS_SEED,
            )
        with (corpus / "train.de").open(encoding="utf-8") as stream:
            pairs = sum(1 for _ in stream)
        if pairs != args.pairs:
            raise UserError(
                f"{corpus} holds {pairs} pairs, not --pairs {args.pairs}: give another --output, or "
                f"delete {args.output}"
            )
    elif not corpus.is_dir():
        raise UserError(f"--corpus {corpus} is not a folder")
    say("tokenising, learning joint BPE, binarising")
    merges = "8000" if args.corpus else "4000"
    command = [BIN / "admin-nmt", "prepare", "custom", "--corpus", corpus]
    command += ["--source-lang", args.source_lang, "--target-lang", args.target_lang]
    command += ["--bpe-tokens", merges, "--joined-dictionary", "--output", args.output / "prepared"]
    run(command, args.output / "prepare.log")


def first_model(args: argparse.Namespace) -> Model:
    """The model that translates: narrow for the generated corpus, wider for the user's text.

    docs/results/deep-training.md says how the schedule for 60 layers was found.
    """
    shape = {"layers": args.layers, "init_type": args.init_type, "seed": args.seed}
    if args.corpus:
        updates = args.updates or 3000
        size = {"embed_dim": 256, "max_tokens": 3000, "lr": 1e-3, "dropout": 0.2}
        return Model(**shape, **size, updates=updates, warmup=max(1, min(400, updates // 3)))
    updates = args.updates or 1400
    size = {"embed_dim": 64, "max_tokens": 1000, "lr": 7e-4}
    return Model(**shape, **size, updates=updates, warmup=max(1, min(400, updates // 2)))


def wanted_trainings(args: argparse.Namespace, data: Path) -> list[Training]:
    """The model that translates and, beside it, plain post-LN; nothing is begun yet.

    Raises:
        UserError: a folder of theirs holds another training.
    """
    models = [first_model(args)]
    if not args.skip_baseline:
        models.append(replace(models[0], init_type="default"))
    return [
        Training(data, model, args.output / f"{model.name}-{model.init_type}") for model in models
    ]


def train(data: Path, trainings: Sequence[Training]) -> None:
    """Run the trainings side by side."""
    first = trainings[0].model
    say("timing a few updates")
    minutes = estimate_minutes(data, first, trainings[0].folder)
    expected = f"about {minutes:.0f} minutes" if minutes >= 1 else "less than a minute"
    beside = ", beside it plain post-LN with the same seed, data and schedule" * (
        len(trainings) > 1
    )
    say(
        f"training {first.label} {first.name}, D = {first.embed_dim}, for {first.updates} updates"
        f"{beside}: {expected}"
    )
    follow(trainings)


def score(data: Path, training: Training) -> dict[str, Any]:
    """Average a model's last checkpoints, translate the test set; the row of the table."""
    folder = training.folder
    averaged, checkpoints = folder / "averaged.pt", folder / "checkpoints"
    command = [BIN / "admin-nmt", "average", "--inputs", checkpoints]
    command += ["--num-update-checkpoints", str(training.model.num_averaged), "--output", averaged]
    run_once(command, folder / "average.log", checkpoints.glob("*.pt"), averaged)
    command = [BIN / "admin-nmt", "evaluate", data, "--path", averaged, "--gen-subset", "test"]
    command += ["--cpu", "--output", folder / "evaluation"]
    found = folder / "evaluation" / "scores.json"
    run_once(command, folder / "evaluate.log", [averaged, *data.rglob("*")], found)
    scores = read_json(found)["scores"]
    by_name = {item["name"]: item for item in scores}
    perplexity = read_curve(training.log, "ppl").values
    return {
        "model": f"{training.label} {training.model.name}",
        "init_type": training.model.init_type,
        "seed": training.model.seed,
        "updates": training.model.updates,
        "BLEU": round(by_name["BLEU"]["score"], 2),
        "chrF2": round(by_name["chrF2"]["score"], 2),
        "train_ppl": round(mean_of_last(perplexity), 2),
        "signature": by_name["BLEU"]["signature"],
    }


def position_share(data: Path, checkpoint: Path) -> float:
    """The share of the encoder output that differs by position, on validation sentences."""
    from fairseq import checkpoint_utils

    import admin_nmt.registration  # noqa: F401  (before other modules that import fairseq)
    from admin_nmt.analysis.collapse import share_on

    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": str(data)}
    )
    task.load_dataset("valid")
    return share_on(models[0], task, "valid")


def translate(args: argparse.Namespace, data: Path, trainings: Sequence[Training]) -> None:
    """Average, translate and score every model; one table."""
    count = trainings[0].model.num_averaged
    say(f"averaging the last {count} checkpoint{'s' * (count > 1)}, translating the test set")
    with threads(len(trainings)) as pool:
        rows = list(pool.map(lambda training: score(data, training), trainings))
    for row, training in zip(rows, trainings, strict=True):
        row["position_share"] = position_share(data, training.folder / "averaged.pt")
    command = shlex.join(["bash", "scripts/quickstart.sh", *sys.argv[1:]])
    today = datetime.date.today().isoformat()
    write_json(args.output / "results.json", {"command": command, "date": today, "models": rows})
    headers = ["", "BLEU", "chrF2", "training perplexity", "encoder output: differs by position"]
    table = [
        [
            row["model"],
            f"{row['BLEU']:.2f}",
            f"{row['chrF2']:.2f}",
            f"{row['train_ppl']:.2f}",
            f"{row['position_share']:.2g}",
        ]
        for row in rows
    ]
    alignment = ("left", *["right"] * 4)
    print(
        tabulate(
            table, headers, tablefmt="github", disable_numparse=True,
            colalign=alignment,
        )
    )  # fmt: skip
    print(f"\nBLEU: {rows[0]['signature']}")
    for training in trainings:
        print(f"translations: {training.folder / 'evaluation' / 'hypotheses.detok'}")


def frequency_perplexities(data: Path, pair: str, lang: str) -> dict[str, float]:
    """Validation perplexities of predicting tokens by their training frequency alone.

    Once over all positions, once by the position in the sentence: what a model can know that sees
    neither the source nor the words before. Unseen tokens get a hundredth of a count.
    """
    import numpy as np
    from fairseq.data import data_utils

    def sentences(split: str) -> list[np.ndarray]:
        dataset = data_utils.load_indexed_dataset(str(data / f"{split}.{pair}.{lang}"))
        return [dataset[i].numpy() for i in range(len(dataset))]

    train, valid = sentences("train"), sentences("valid")
    counts = np.full((max(map(len, train + valid)), max(s.max() for s in train + valid) + 1), 1e-2)
    for sentence in train:
        counts[np.arange(len(sentence)), sentence] += 1
    everywhere = counts.sum(0) / counts.sum()
    by_position = counts / counts.sum(1, keepdims=True)

    def perplexity(probabilities: list[np.ndarray]) -> float:
        return float(np.exp(-np.log(np.concatenate(probabilities)).mean()))

    return {
        "word frequencies": perplexity([everywhere[s] for s in valid]),
        "word frequencies by position": perplexity(
            [by_position[np.arange(len(s)), s] for s in valid]
        ),
    }


def plot(args: argparse.Namespace, data: Path, trainings: Sequence[Training]) -> None:
    """The training curves, and the omega profile of the first model."""
    from admin_nmt.analysis.plots import plot_curves

    say("plots")
    levels = frequency_perplexities(
        data, f"{args.source_lang}-{args.target_lang}", args.target_lang
    )
    path = args.output / "training.png"
    model = trainings[0].model
    plot_curves(
        {training.label: read_curve(training.log, "ppl") for training in trainings},
        path,
        ylabel="training perplexity",
        title=f"{model.name}, D = {model.embed_dim}, same seed, data and schedule",
        levels=levels,
        log_scale=True,
    )
    print(f"training: {path}")
    if model.init_type.startswith("admin"):
        command = [BIN / "admin-nmt", "profile", *trainings[0].command[1:]]
        profile, picture = args.output / "profile.json", args.output / "profile.png"
        command += ["--output", profile, "--plot", picture]
        run_once(command, args.output / "profile.log", data.rglob("*"), profile, picture)
        print(f"omega by sublayer: {picture}")


def main() -> int:
    """All steps; a step that is done is not done again."""
    args = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs ends with this process
    # Before fairseq is imported, which sets the level of all libraries to DEBUG.
    logging.basicConfig(level=logging.WARNING)
    start = time.perf_counter()
    try:
        make_directory(args.output)
        data = args.output / "prepared" / "data-bin"
        trainings = wanted_trainings(args, data)
        prepare(args)
        train(data, trainings)
        translate(args, data, trainings)
        plot(args, data, trainings)
    except UserError as error:
        print(f"quickstart.sh: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("quickstart.sh: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    say(f"done in {(time.perf_counter() - start) / 60:.1f} minutes; everything is in {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
