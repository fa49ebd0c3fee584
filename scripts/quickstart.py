"""The quickstart: corpus, training, translation, BLEU and plots, resumable at every step.

Run it through `scripts/quickstart.sh`, which installs what it needs first.
"""

import argparse
import json
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
from admin_nmt.data.toy_grammar import write_corpus  # noqa: E402
from admin_nmt.errors import UserError  # noqa: E402
from admin_nmt.files import make_directory  # noqa: E402

SEED = 1
BIN = Path(sys.executable).parent
#: The pair that shows what ADMIN is for; see `deep_pair`.
PAIR_LAYERS = (60, 12)
PAIR_UPDATES = 300


@dataclass(frozen=True)
class Model:
    """Size and training length of one model.

    Attributes:
        layers: encoder and decoder layers.
        embed_dim: D; the FFN is twice as wide.
        max_tokens: of a batch.
        updates: of training.
        lr: peak learning rate, reached after `warmup` updates.
        threads: CPU threads of the training process.
    """

    layers: tuple[int, int]
    embed_dim: int
    max_tokens: int
    updates: int
    lr: float = 1.5e-3
    warmup: int = 200
    dropout: float = 0.0
    threads: int = 2
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
        default="18-6",
        help="encoder and decoder layers of the model that translates, e.g. 60-12 (default 18-6)",
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
        "--skip-pair", action="store_true", help="leave out the 60L-12L ADMIN / post-LN pair"
    )
    args = parser.parse_args()
    if not re.fullmatch(r"[1-9]\d*-[1-9]\d*", args.layers):
        parser.error(f"--layers {args.layers}: give encoder and decoder layers such as 60-12")
    args.layers = tuple(int(number) for number in args.layers.split("-"))
    args.output = args.output or Path("quickstart-output" + ("-corpus" if args.corpus else ""))
    return args


def say(text: str) -> None:
    """A heading on the terminal."""
    print(f"\n== {text}", flush=True)


def run(command: Sequence[str | Path], log: Path, threads: int = 2) -> None:
    """Run a program with its output in `log`; its own error line is shown if it fails."""
    with log.open("w", encoding="utf-8") as stream:
        result = subprocess.run(
            [str(part) for part in command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
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
            write_corpus(corpus, num_train=20000, num_valid=300, num_test=500, seed=SEED)
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
    interval = str(max(1, model.updates // 20))
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
        self.done = folder / "done"
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
                env=os.environ | {"OMP_NUM_THREADS": str(self.model.threads)},
            )

    def poll(self) -> tuple[int, str]:
        """Updates done so far, and the perplexity logged last."""
        if self.process is None:
            return self.model.updates, ""
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


def follow(trainings: Sequence[Training]) -> None:
    """Run trainings side by side, with one progress bar each, until all have ended."""
    bars = [
        tqdm(total=t.model.updates, desc=t.label, unit="update", position=place, mininterval=1)
        for place, t in enumerate(trainings)
    ]
    try:
        for training in trainings:
            training.start()
        while True:
            ended = [training.check() for training in trainings]
            for bar, training in zip(bars, trainings, strict=True):
                updates, perplexity = training.poll()
                bar.n = updates
                bar.set_postfix_str(f"ppl {perplexity}" if perplexity else "")
            if all(ended):
                return
            time.sleep(1)
    finally:
        for training in trainings:
            if training.process is not None and training.process.poll() is None:
                training.process.terminate()
                training.process.wait()
        for bar in bars:
            bar.refresh()
            bar.close()


def estimate_minutes(data: Path, model: Model, folder: Path) -> float:
    """Minutes that training `model` takes here, from a few updates of it."""
    note = folder / "seconds_per_update.json"
    if not note.exists():
        trial = Model(**(vars(model) | {"updates": 8}))
        command = [*train_command(data, trial, folder / "trial"), "--no-save"]
        command += ["--disable-validation", "--log-interval", "1"]
        run(command, folder / "trial.log", model.threads)
        wall = read_curve(folder / "trial.log", "train_wall")
        walls = [
            float(match)
            for match in re.findall(
                r'"ups": "([\d.]+)"', (folder / "trial.log").read_text(encoding="utf-8")
            )
        ]
        rates = sorted(rate for rate in walls if rate > 0)
        assert wall.updates
        note.write_text(json.dumps(1 / rates[len(rates) // 2]))
    return model.updates * json.loads(note.read_text()) / 60


def unigram_perplexity(data: Path, pair: str, lang: str) -> float:
    """Perplexity on the validation set of predicting tokens by their training frequency alone."""
    import numpy as np
    from fairseq.data import data_utils

    def tokens(split: str) -> np.ndarray:
        dataset = data_utils.load_indexed_dataset(str(data / f"{split}.{pair}.{lang}"))
        return np.concatenate([dataset[i].numpy() for i in range(len(dataset))])

    train, valid = tokens("train"), tokens("valid")
    counts = np.bincount(train, minlength=valid.max() + 1) + 1e-2
    return float(np.exp(-np.log(counts[valid] / counts.sum()).mean()))


def deep_pair(args: argparse.Namespace, data: Path) -> None:
    """60L-12L twice, ADMIN and plain post-LN, alike in all else, and the picture of both."""
    say(
        f"{PAIR_LAYERS[0]}L-{PAIR_LAYERS[1]}L pair: ADMIN and plain post-LN, same width, seed and "
        f"{PAIR_UPDATES} updates"
    )
    trainings = [
        Training(data, pair_model(init_type), args.output / f"pair-{init_type}", label)
        for init_type, label in (("admin", "ADMIN"), ("default", "post-LN"))
    ]
    follow(trainings)
    from admin_nmt.analysis.plots import plot_curves

    curves = {t.label: read_curve(t.log, "ppl") for t in trainings}
    level = unigram_perplexity(data, f"{args.source_lang}-{args.target_lang}", args.target_lang)
    plot = args.output / "pair.png"
    plot_curves(
        curves,
        plot,
        ylabel="training perplexity",
        title=f"{trainings[0].model.name}, D = {trainings[0].model.embed_dim}",
        levels={"word frequencies": level},
        log_scale=True,
    )
    ends = ", ".join(f"{label} {curve.values[-1]:.1f}" for label, curve in curves.items())
    print(f"training perplexity after {PAIR_UPDATES} updates: {ends}; word frequencies {level:.1f}")
    print(f"curves: {plot}")


def pair_model(init_type: str) -> Model:
    """One of the pair; one thread each, because both train at the same time."""
    return Model(PAIR_LAYERS, 64, 1000, PAIR_UPDATES, threads=1, init_type=init_type)


def translating_model(args: argparse.Namespace) -> Model:
    """The model that translates: small for the generated corpus, wider for the user's text."""
    if args.corpus:
        return Model(args.layers, 256, 3000, args.updates or 3000, lr=1e-3, warmup=400, dropout=0.2)
    return Model(args.layers, 64, 1000, args.updates or 1000)


def train_and_score(args: argparse.Namespace, data: Path) -> None:
    """Train, average the last checkpoints, translate the test set and print the scores."""
    model = translating_model(args)
    folder = make_directory(args.output / f"model-{model.name}")
    minutes = estimate_minutes(data, model, folder)
    say(
        f"training {model.name}, D = {model.embed_dim}: {model.updates} updates, about {minutes:.0f} minutes"
    )
    follow([Training(data, model, folder, f"ADMIN {model.name}")])
    say("averaging the last 5 checkpoints, translating the test set")
    averaged = folder / "averaged.pt"
    command = [BIN / "admin-nmt", "average", "--inputs", folder / "checkpoints"]
    run([*command, "--num-update-checkpoints", "5", "--output", averaged], folder / "average.log")
    command = [BIN / "admin-nmt", "evaluate", data, "--path", averaged, "--gen-subset", "test"]
    run([*command, "--cpu", "--output", folder / "evaluation"], folder / "evaluate.log")
    print((folder / "evaluate.log").read_text(encoding="utf-8"))
    plot_model(args, data, model, folder)


def plot_model(args: argparse.Namespace, data: Path, model: Model, folder: Path) -> None:
    """Curves of the training, and the omega profile of the architecture."""
    from admin_nmt.analysis.plots import plot_curves

    log = folder / "train.log"
    curves = {"train": read_curve(log, "ppl"), "valid": read_curve(log, "valid_ppl")}
    plot_curves(
        curves, args.output / "training.png", ylabel="perplexity", title=model.name, log_scale=True
    )
    command = train_command(data, model, folder / "unused")
    command = [BIN / "admin-nmt", "profile", *command[1:], "--output", args.output / "profile.json"]
    run([*command, "--plot", args.output / "profile.png"], folder / "profile.log")
    print(f"plots: {args.output / 'training.png'}, {args.output / 'profile.png'}")


def main() -> int:
    """All steps; a step that is done is not done again."""
    args = parse_arguments()
    start = time.perf_counter()
    try:
        make_directory(args.output)
        data = prepare(args)
        train_and_score(args, data)
        if not args.skip_pair:
            deep_pair(args, data)
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
