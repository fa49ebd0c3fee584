"""The quickstart: corpus, training, translation, BLEU and plots, resumable at every step.

Run it through `scripts/quickstart.sh`, which installs what it needs first.
"""

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import admin_nmt_autoload

admin_nmt_autoload.defer_registration = True

from admin_nmt.analysis.training_log import read_curve  # noqa: E402
from admin_nmt.errors import UserError  # noqa: E402
from admin_nmt.files import make_directory  # noqa: E402
from corpus.grammar import write_corpus  # noqa: E402

SEED = 1
BIN = Path(sys.executable).parent
#: The pair that shows what ADMIN is for; see `deep_pair`.
PAIR_LAYERS = (60, 12)
PAIR_UPDATES = 400


@dataclass(frozen=True)
class Model:
    """Size and training length of one model.

    Attributes:
        layers: encoder and decoder layers.
        embed_dim: D; the FFN is twice as wide.
        max_tokens: of a batch.
        updates: of training.
        lr: peak learning rate, reached after `warmup` updates.
    """

    layers: tuple[int, int]
    embed_dim: int
    max_tokens: int
    updates: int
    lr: float = 1.5e-3
    warmup: int = 200
    dropout: float = 0.0
    init_type: str = "admin"

    @property
    def name(self) -> str:
        return f"{self.layers[0]}L-{self.layers[1]}L"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="quickstart.sh",
        description="Train a deep ADMIN Transformer for translation on this machine's CPU.",
    )
    parser.add_argument(
        "--layers",
        help="encoder and decoder layers of the model that translates (default 60-12; with --corpus "
        "6-3)",
    )
    parser.add_argument(
        "--init-type",
        default="admin-log",
        choices=("admin", "admin-log", "admin-const", "deepnorm", "default"),
        help="its residual scheme (default admin-log; docs/results.md says why)",
    )
    parser.add_argument(
        "--corpus",
        metavar="DIR",
        type=Path,
        help="your own text: train.SRC, train.TGT, valid.*, test.* (plain or .gz) in place of the "
        "generated corpus",
    )
    parser.add_argument("--source-lang", default="de", help="with --corpus (default de)")
    parser.add_argument("--target-lang", default="en", help="with --corpus (default en)")
    parser.add_argument("--updates", type=int, help="training updates of the translating model")
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help="where everything goes (default quickstart-output); the same folder resumes",
    )
    parser.add_argument(
        "--pairs", type=int, default=20000, help="training sentences of the generated corpus"
    )
    parser.add_argument(
        "--skip-pair", action="store_true", help="leave out the 60L-12L ADMIN / post-LN pair"
    )
    args = parser.parse_args()
    args.layers = args.layers or ("6-3" if args.corpus else "60-12")
    if not re.fullmatch(r"[1-9]\d*-[1-9]\d*", args.layers):
        parser.error(f"--layers {args.layers}: give encoder and decoder layers such as 60-12")
    args.layers = tuple(int(number) for number in args.layers.split("-"))
    args.output = args.output or Path("quickstart-output" + ("-corpus" if args.corpus else ""))
    return args


def say(text: str) -> None:
    """A heading on the terminal."""
    print(f"\n== {text}", flush=True)


def run(command: Sequence[str | Path], log: Path) -> None:
    """Run a program with its output in `log`; its own error line is shown if it fails."""
    with log.open("w", encoding="utf-8") as stream:
        result = subprocess.run(
            [str(part) for part in command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    if result.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UserError(f"{Path(command[0]).name} failed, see {log}: {lines[-1] if lines else ''}")


def prepare(args: argparse.Namespace) -> Path:
    """Corpus, tokenisation, BPE and binarisation; returns the folder for fairseq."""
    corpus = args.corpus
    if corpus is None:
        corpus = args.output / "corpus"
        if not (corpus / "test.en").exists():
            say("making a German-English corpus from our own grammar")
            held_out = min(500, max(args.pairs // 40, 10))
            write_corpus(
                corpus,
                num_train=args.pairs,
                num_valid=min(300, held_out),
                num_test=held_out,
                seed=SEED,
            )
    elif not corpus.is_dir():
        raise UserError(f"--corpus {corpus} is not a folder")
    say("tokenising, learning joint BPE, binarising")
    merges = "8000" if args.corpus else "4000"
    command = [BIN / "admin-nmt", "prepare", "custom", "--corpus", corpus]
    command += ["--source-lang", args.source_lang, "--target-lang", args.target_lang]
    command += ["--bpe-tokens", merges, "--joined-dictionary", "--output", args.output / "prepared"]
    run(command, args.output / "prepare.log")
    return args.output / "prepared" / "data-bin"


def train_command(data: Path, model: Model, save_dir: Path) -> list[str | Path]:
    """`fairseq-train` for one model; run again, it goes on from its last checkpoint."""
    encoder_layers, decoder_layers = model.layers
    size, inner = str(model.embed_dim), str(2 * model.embed_dim)
    interval = str(max(1, model.updates // 10))
    return [
        BIN / "fairseq-train", data, "--cpu", "--seed", str(SEED),
        "--arch", "admin_transformer", "--init-type", model.init_type,
        "--encoder-layers", str(encoder_layers), "--decoder-layers", str(decoder_layers),
        "--encoder-embed-dim", size, "--decoder-embed-dim", size,
        "--encoder-ffn-embed-dim", inner, "--decoder-ffn-embed-dim", inner,
        "--encoder-attention-heads", "4", "--decoder-attention-heads", "4",
        "--share-all-embeddings", "--dropout", str(model.dropout),
        "--optimizer", "radam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1.0",
        "--lr", str(model.lr), "--lr-scheduler", "inverse_sqrt",
        "--warmup-updates", str(model.warmup), "--warmup-init-lr", "1e-7",
        "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1",
        "--max-tokens", str(model.max_tokens), "--max-tokens-valid", "4000",
        "--max-update", str(model.updates), "--save-dir", save_dir,
        "--save-interval-updates", interval, "--keep-interval-updates", "5",
        "--validate-interval-updates", interval, "--validate-interval", "100000",
        "--no-epoch-checkpoints", "--log-format", "json", "--log-interval", "5",
        "--num-workers", "0",
    ]  # fmt: skip


class Training:
    """A `fairseq-train` process whose progress can be followed."""

    def __init__(self, data: Path, model: Model, folder: Path, label: str) -> None:
        self.model, self.label = model, label
        self.folder = make_directory(folder)
        self.log = folder / "train.log"
        self.command = train_command(data, model, folder / "checkpoints")
        self.done = folder / "done"  # written when training has ended, with what was trained
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start or resume the process, unless it has finished in an earlier run."""
        if self.done.exists() and self.done.read_text() == str(self.model):
            return
        with self.log.open("a", encoding="utf-8") as stream:
            self.process = subprocess.Popen(
                [str(part) for part in self.command],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def poll(self) -> tuple[int, str]:
        """Updates done so far, and the perplexity logged last."""
        if self.process is None:
            return (self.model.updates if self.done.exists() else 0), ""
        pattern = r'"ppl": "([^"]+)".*?"num_updates": "(\d+)"'
        found = re.findall(pattern, self.log.read_text(encoding="utf-8", errors="replace"))
        return (int(found[-1][1]), found[-1][0]) if found else (0, "")

    def check(self) -> bool:
        """Whether the process has ended well.

        Raises:
            UserError: it failed.
        """
        if self.process is None:
            return True
        code = self.process.poll()
        if code is None:
            return False
        if code:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise UserError(f"training {self.label} failed, see {self.log}: {lines[-1]}")
        self.done.write_text(str(self.model))
        return True


class Display:
    """One progress bar per training on a terminal; a line every half minute elsewhere."""

    def __init__(self, trainings: Sequence[Training]) -> None:
        self.trainings = trainings
        self.last_line = time.monotonic()
        self.bars = [
            tqdm(total=t.model.updates, desc=f"{t.label:20}", unit="update", position=place)
            for place, t in enumerate(trainings if sys.stderr.isatty() else [])
        ]

    def update(self) -> None:
        """Show where every training is."""
        progress = [training.poll() for training in self.trainings]
        for bar, (updates, perplexity) in zip(self.bars, progress, strict=False):
            bar.n = updates
            bar.set_postfix_str(f"ppl {perplexity}" if perplexity else "")
        if not self.bars and time.monotonic() - self.last_line > 30:
            self.last_line = time.monotonic()
            pairs = zip(self.trainings, progress, strict=True)
            print(
                "; ".join(
                    f"{t.label}: {n}/{t.model.updates} updates, ppl {p}" for t, (n, p) in pairs
                ),
                flush=True,
            )

    def close(self) -> None:
        """Leave the bars as they are."""
        for bar in self.bars:
            bar.close()


def follow(trainings: Sequence[Training], slots: int = 2) -> None:
    """Run trainings of one thread each, `slots` at a time, and show their progress.

    Processes of one thread use two cores better than one process of two threads: the operations of
    narrow models are too small to share.
    """
    waiting, running = list(trainings), []
    display = Display(trainings)
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                running.append(waiting.pop(0))
                running[-1].start()
            running = [training for training in running if not training.check()]
            display.update()
            time.sleep(1)
    finally:
        for training in running:
            if training.process is not None and training.process.poll() is None:
                training.process.terminate()
                training.process.wait()
        display.close()


def estimate_minutes(data: Path, model: Model, folder: Path) -> float:
    """Minutes that training `model` takes here, from a few updates of it."""
    note = folder / "seconds_per_update.json"
    if not note.exists():
        trial = Model(**(vars(model) | {"updates": 8}))
        command = [*train_command(data, trial, folder / "trial"), "--no-save"]
        log = folder / "trial.log"
        run([*command, "--disable-validation", "--log-interval", "1"], log)
        rates = [float(rate) for rate in re.findall(r'"ups": "([\d.]+)"', log.read_text())]
        note.write_text(json.dumps(1 / max(sorted(rates)[len(rates) // 2], 0.01)))
    return model.updates * json.loads(note.read_text()) / 60


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


def pair_model(init_type: str) -> Model:
    """One of the pair that shows what ADMIN is for: alike in all but `init_type`."""
    return Model(PAIR_LAYERS, 64, 1000, PAIR_UPDATES, init_type=init_type)


def translating_model(args: argparse.Namespace) -> Model:
    """The model that translates: narrow for the generated corpus, wider for the user's text."""
    if args.corpus:
        size = {"embed_dim": 256, "max_tokens": 3000, "lr": 1e-3, "warmup": 400, "dropout": 0.2}
        updates = args.updates or 3000
    else:
        size = {"embed_dim": 64, "max_tokens": 1000}
        updates = args.updates or 700
    return Model(layers=args.layers, updates=updates, init_type=args.init_type, **size)


def train(args: argparse.Namespace, data: Path) -> tuple[Training, list[Training]]:
    """Train the translating model and, beside it, the pair."""
    model = translating_model(args)
    label = f"{args.init_type} {model.name}"
    main = Training(data, model, args.output / f"model-{model.name}-{args.init_type}", label)
    pair = []
    if not args.skip_pair:
        pair = [
            Training(data, pair_model(init), args.output / f"pair-{init}", label)
            for init, label in (("admin", "pair: ADMIN"), ("default", "pair: post-LN"))
        ]
    minutes = [estimate_minutes(data, t.model, t.folder) for t in (main, *pair)]
    # Two at a time: the translating model on one core, the pair one after the other on the second.
    together = max(minutes[0], sum(minutes[1:]))
    say(
        f"training {model.name}, D = {model.embed_dim}, for {model.updates} updates"
        + (f", beside it a {pair[0].model.name} pair for {PAIR_UPDATES} updates" if pair else "")
        + f": about {together:.0f} minutes"
    )
    follow([main, *pair])
    return main, pair


def translate(args: argparse.Namespace, data: Path, training: Training) -> None:
    """Average the last checkpoints, translate the test set, print the scores."""
    say("averaging the last 5 checkpoints, translating the test set")
    folder = training.folder
    averaged = folder / "averaged.pt"
    command = [BIN / "admin-nmt", "average", "--inputs", folder / "checkpoints"]
    run([*command, "--num-update-checkpoints", "5", "--output", averaged], folder / "average.log")
    command = [BIN / "admin-nmt", "evaluate", data, "--path", averaged, "--gen-subset", "test"]
    log = folder / "evaluate.log"
    run([*command, "--cpu", "--output", folder / "evaluation"], log)
    lines = log.read_text(encoding="utf-8").splitlines()
    print("\n".join(line for line in lines if " | INFO | " not in line))
    hypotheses = sorted((folder / "evaluation").glob("*.detok*"))
    print(f"translations: {', '.join(str(path) for path in hypotheses) or folder / 'evaluation'}")


def plot(args: argparse.Namespace, data: Path, main: Training, pair: Sequence[Training]) -> None:
    """The training curve, the omega profile of the architecture, and the pair."""
    from admin_nmt.analysis.plots import plot_curves

    say("plots")
    curves = {
        "train": read_curve(main.log, "ppl"),
        "valid": read_curve(main.log, "valid_ppl"),
    }
    path = args.output / "training.png"
    plot_curves(curves, path, ylabel="perplexity", title=main.label, log_scale=True)
    print(f"training: {path}")
    # The pair's ADMIN is profiled; admin-log has one omega for all sublayers.
    command = [BIN / "admin-nmt", "profile", *(pair[0] if pair else main).command[1:]]
    command += ["--output", args.output / "profile.json", "--plot", args.output / "profile.png"]
    run(command, args.output / "profile.log")
    print(f"omega by sublayer: {args.output / 'profile.png'}")
    if pair:
        plot_pair(args, data, main, pair)


def plot_pair(
    args: argparse.Namespace, data: Path, main: Training, pair: Sequence[Training]
) -> None:
    """Perplexity of both of the pair, with that of word frequencies as a line.

    The translating model joins the picture where it is of the same size.
    """
    from admin_nmt.analysis.plots import plot_curves

    curves = {t.label.removeprefix("pair: "): read_curve(t.log, "ppl") for t in pair}
    if (main.model.layers, main.model.embed_dim) == (PAIR_LAYERS, pair[0].model.embed_dim):
        curves[main.label] = read_curve(main.log, "ppl")
    levels = frequency_perplexities(
        data, f"{args.source_lang}-{args.target_lang}", args.target_lang
    )
    path = args.output / "pair.png"
    model = pair[0].model
    plot_curves(
        curves,
        path,
        ylabel="training perplexity",
        title=f"{model.name}, D = {model.embed_dim}, same seed and data",
        levels=levels,
        log_scale=True,
    )
    ends = ", ".join(f"{label} {curve.values[-1]:.1f}" for label, curve in curves.items())
    print(
        f"{model.name} pair: {path}; training perplexity at the end: {ends} "
        f"({', '.join(f'{name}: {level:.1f}' for name, level in levels.items())})"
    )


def main() -> int:
    """All steps; a step that is done is not done again."""
    args = parse_arguments()
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    start = time.perf_counter()
    try:
        make_directory(args.output)
        data = prepare(args)
        training, pair = train(args, data)
        translate(args, data, training)
        plot(args, data, training, pair)
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
