"""Trainings of the quickstart: `fairseq-train` processes side by side, followed to their end."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from admin_nmt.errors import UserError
from admin_nmt.files import atomic_write, last_line, make_directory
from admin_nmt.programs import end_program, run_program

BIN = Path(sys.executable).parent
#: Checkpoints of a training, evenly spread, of which the last few are averaged. They lie close
#: together: the model still improves fast when training ends, and older weights would pull it back.
NUM_CHECKPOINTS, NUM_AVERAGED = 40, 3
#: One thread a process: the operations of narrow models are too small to share.
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Model:
    """Size and schedule of one model.

    Attributes:
        layers: encoder and decoder layers.
        embed_dim: D; the FFN is twice as wide.
        max_tokens: of a batch.
        updates: of training.
        lr: peak learning rate, reached after `warmup` updates; then it falls with the inverse
            square root of the update.
        init_type: residual scheme.
        seed: of weights, batches and dropout.
    """

    layers: tuple[int, int]
    embed_dim: int
    max_tokens: int
    updates: int
    lr: float
    warmup: int
    dropout: float = 0.0
    init_type: str = "admin"
    seed: int = 1

    @property
    def name(self) -> str:
        return f"{self.layers[0]}L-{self.layers[1]}L"

    @property
    def label(self) -> str:
        """As it stands in tables and plots."""
        names = {"admin": "ADMIN", "default": "post-LN"}
        return names.get(self.init_type, self.init_type)

    @property
    def num_averaged(self) -> int:
        """How many of its last checkpoints are averaged: of one or two updates there are fewer."""
        return min(NUM_AVERAGED, self.updates)


def train_command(data: Path, model: Model, save_dir: Path) -> list[str | Path]:
    """`fairseq-train` for one model; run again, it goes on from its last checkpoint."""
    encoder_layers, decoder_layers = model.layers
    size, inner = str(model.embed_dim), str(2 * model.embed_dim)
    return [
        BIN / "fairseq-train", data, "--cpu", "--seed", str(model.seed),
        "--arch", "admin_transformer", "--init-type", model.init_type,
        "--encoder-layers", str(encoder_layers), "--decoder-layers", str(decoder_layers),
        "--encoder-embed-dim", size, "--decoder-embed-dim", size,
        "--encoder-ffn-embed-dim", inner, "--decoder-ffn-embed-dim", inner,
        "--encoder-attention-heads", "4", "--decoder-attention-heads", "4",
        "--share-all-embeddings", "--dropout", str(model.dropout),
        "--optimizer", "radam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1.0",
        "--lr", str(model.lr), "--lr-scheduler", "inverse_sqrt",
        "--warmup-updates", str(model.warmup), "--warmup-init-lr", "1e-7",
        "--criterion", "admin_label_smoothed_cross_entropy", "--label-smoothing", "0.1",
        "--max-tokens", str(model.max_tokens), "--disable-validation",
        "--max-update", str(model.updates), "--save-dir", save_dir,
        "--save-interval-updates", str(max(1, model.updates // NUM_CHECKPOINTS)),
        "--keep-interval-updates", str(NUM_AVERAGED),
        "--no-epoch-checkpoints", "--log-format", "json",
        "--log-interval", str(min(10, model.updates)),
        "--num-workers", "0",
    ]  # fmt: skip


def run(command: Sequence[str | Path], log: Path) -> None:
    """Run a program with its output in `log`; its own error line is shown if it fails.

    On a terminal the time that has passed is shown meanwhile.

    Raises:
        UserError: it failed.
        KeyboardInterrupt: as `run_program`.
    """
    with (
        log.open("w", encoding="utf-8") as stream,
        tqdm(
            desc=log.stem,
            bar_format="{desc}: {elapsed}",
            leave=False,
            disable=not sys.stderr.isatty(),
        ) as clock,
    ):
        status = run_program(command, stream, environment=ENVIRONMENT, meanwhile=clock.refresh)
    if status:
        raise UserError(f"{Path(command[0]).name} failed, see {log}: {last_line(log)}")


def _keep(path: Path, text: str) -> None:
    """Write a file that later runs go by, whole or not at all."""
    with atomic_write(path) as stream:
        stream.write(text)


def _kept(path: Path) -> str | None:
    """What `_keep` wrote; None where there is nothing, or only what the kill of an earlier version
    left, which wrote in place: an empty file."""
    return (path.read_text(encoding="utf-8") if path.exists() else "") or None


def run_once(
    command: Sequence[str | Path], log: Path, inputs: Iterable[Path], *outputs: Path
) -> None:
    """`run`, unless the outputs are there and this very command has ended well after the last change
    of an input.

    Beside the log a file `.done` remembers the command.
    """
    done, words = log.with_suffix(".done"), shlex.join(map(str, command))
    if _kept(done) == words and all(path.exists() for path in outputs):
        ended = done.stat().st_mtime_ns
        if all(path.stat().st_mtime_ns <= ended for path in inputs):
            return
    done.unlink(missing_ok=True)
    run(command, log)
    _keep(done, words)


class Training:
    """A `fairseq-train` process whose progress can be followed.

    Raises:
        UserError: the folder holds another model, or this one trained for longer; training on is what
            a folder of fewer updates is for.
    """

    def __init__(self, data: Path, model: Model, folder: Path) -> None:
        self.model, self.label = model, model.label
        self.folder = make_directory(folder)
        self.log = folder / "train.log"
        self.command = train_command(data, model, folder / "checkpoints")
        self.done = folder / "done"  # written when training has ended, with what was trained
        self.process: subprocess.Popen | None = None
        self.record = folder / "model"
        self._require_no_longer_training()  # first: the length of the warm-up follows from it
        self._require_same_model()

    def start(self) -> None:
        """Start or resume the process, unless it has finished in an earlier run."""
        if _kept(self.done) == str(self.model):
            return
        _keep(self.record, self._whatever_its_length())
        with self.log.open("a", encoding="utf-8") as stream:
            self.process = subprocess.Popen(
                [str(part) for part in self.command],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | ENVIRONMENT,
            )

    def _require_same_model(self) -> None:
        """Refuse another model than that of the folder, naming both."""
        model = self._whatever_its_length()
        found = _kept(self.record) or model
        if found != model:
            raise UserError(
                f"{self.folder} holds another training ({found}) than this one ({model}): give "
                "another --output, or delete that folder"
            )

    def _whatever_its_length(self) -> str:
        return str(replace(self.model, updates=0))

    def _require_no_longer_training(self) -> None:
        """fairseq would find nothing left to do, and the longer training be scored as this one."""
        last = self.folder / "checkpoints" / "checkpoint_last.pt"
        if not last.exists():
            return
        from admin_nmt.checkpoints import Checkpoint  # imports PyTorch

        updates = Checkpoint.open(last).num_updates or 0
        if updates > self.model.updates:
            raise UserError(
                f"{self.folder} holds a training of {updates} updates, not --updates "
                f"{self.model.updates}: give another --output, or delete that folder"
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
            raise UserError(f"training {self.label} failed, see {self.log}: {last_line(self.log)}")
        _keep(self.done, str(self.model))
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


def follow(trainings: Sequence[Training]) -> None:
    """Run all trainings at once, one thread each, and show their progress.

    Processes of one thread use two cores better than one process of two threads, see `ENVIRONMENT`.
    """
    display = Display(trainings)
    try:
        for training in trainings:
            training.start()
        running = list(trainings)
        while running := [training for training in running if not training.check()]:
            display.update()
            time.sleep(1)
    finally:
        for training in trainings:
            if training.process is not None:
                end_program(training.process)
        display.close()


def mean_of_last(values: Sequence[float], count: int = 5) -> float:
    """Mean of the last `count` values of a curve, or of all where there are fewer."""
    return sum(values[-count:]) / len(values[-count:])


def estimate_minutes(data: Path, model: Model, folder: Path) -> float:
    """Minutes that training `model` takes here, from a few updates of it."""
    note = folder / "seconds_per_update.json"
    seconds = _kept(note)
    if seconds is None:
        command = train_command(data, replace(model, updates=8, warmup=4), folder / "trial")
        log = folder / "trial.log"
        options = ["--no-save", "--log-interval", "1"]
        run([*command, *options], log)
        rates = [float(rate) for rate in re.findall(r'"ups": "([\d.]+)"', log.read_text())]
        seconds = str(1 / max(sorted(rates)[len(rates) // 2], 0.01))
        _keep(note, seconds)
    return model.updates * float(seconds) / 60
