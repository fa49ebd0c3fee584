"""Stage `train`: a deep model learns to translate, and plain post-LN beside it.

`fairseq-train` with the quickstart's options at the ADMIN papers' true size: 60L-12L, D = 512, in
bfloat16. Profiled ADMIN trains as long as the time allows; plain post-LN with the same seed, data and
schedule gets as many updates. Scores are those of the last weights, nothing averaged.
"""

import math
import shutil
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from admin_nmt.analysis.training_log import Curve, read_curve
from admin_nmt.errors import UserError
from admin_nmt.files import make_directory
from admin_nmt.json_files import read_json, write_json
from gpu_check.data import data_folder
from gpu_check.stage import Context
from trainings import BIN, Model, mean_of_last, train_command
from trainings import run as run_program

#: Share of the stage's time for one training; the rest is for evaluation and start-up.
TRAINING_SHARE = 0.33
#: No training ends by this number.
MANY_UPDATES = 100_000
#: Beside a training, which data it is of: other stages may be given others.
DATA = "data.json"


@dataclass(frozen=True)
class Trained:
    """A finished training."""

    model: Model
    folder: Path

    @property
    def log(self) -> Path:
        """What fairseq printed."""
        return self.folder / "train.log"

    @property
    def checkpoint(self) -> Path:
        """The last weights."""
        return self.folder / "checkpoints" / "checkpoint_last.pt"

    def curve(self, name: str) -> Curve:
        """A logged value over the updates."""
        return read_curve(self.log, name)


def size(context: Context) -> Model:
    """The model, with a schedule for some thousand updates."""
    if context.smoke:
        return Model((2, 1), 32, max_tokens=300, updates=12, lr=1e-3, warmup=4)
    return Model(
        (60, 12), 512, max_tokens=4096, updates=MANY_UPDATES, lr=5e-4, warmup=500, dropout=0.2
    )


def command(data: Path, model: Model, folder: Path, context: Context, seconds: float) -> list:
    """`fairseq-train` for one model; what comes last counts."""
    parts = train_command(data, model, folder / "checkpoints")
    if context.device == "cuda":
        parts.remove("--cpu")
        parts += ["--bf16", "--distributed-world-size", "1"]  # one of several GPUs
        parts += ["--cuda-graphs", "--num-batch-buckets", "8", "--fused-residual-norm"]
    if context.smoke:
        parts += ["--log-interval", "2"]
    else:
        parts += ["--encoder-ffn-embed-dim", "2048", "--decoder-ffn-embed-dim", "2048"]
        parts += ["--encoder-attention-heads", "8", "--decoder-attention-heads", "8"]
    # Files of gigabytes would take the time: only the last weights are kept.
    parts += ["--save-interval-updates", "0", "--save-interval", str(MANY_UPDATES)]
    parts += ["--no-save-optimizer-state", "--stop-time-hours", f"{seconds / 3600:.6f}"]
    return parts


def train(data: Path, model: Model, folder: Path, context: Context, seconds: float) -> Trained:
    """Train for `seconds`, or until `model.updates`.

    Raises:
        UserError: the training failed; its last words.
    """
    shutil.rmtree(folder, ignore_errors=True)  # an earlier run's weights would be trained on
    trained = Trained(model, make_directory(folder))
    write_json(folder / DATA, {"data": str(data.resolve())})
    run_program(command(data, model, folder, context, seconds), trained.log)
    return trained


def is_of(folder: Path, data: Path) -> bool:
    """Whether `train` has trained there on `data`; a folder of an earlier version does not say so."""
    note = folder / DATA
    return note.exists() and read_json(note) == {"data": str(data.resolve())}


def evaluate(data: Path, trained: Trained, context: Context) -> dict[str, float]:
    """BLEU and chrF2 on the test set."""
    parts: list[str | Path] = [BIN / "admin-nmt", "evaluate", data, "--path", trained.checkpoint]
    parts += ["--gen-subset", "test", "--output", trained.folder / "evaluation"]
    run_program(
        [*parts, "--cpu" if context.device == "cpu" else "--fp16"], trained.folder / "evaluate.log"
    )
    scores = read_json(trained.folder / "evaluation" / "scores.json")["scores"]
    found = {item["name"]: item["score"] for item in scores}
    return {"BLEU": round(found["BLEU"], 2), "chrF2": round(found["chrF2"], 2)}


def report_curves(context: Context, trainings: list[Trained]) -> None:
    """Training perplexity at about ten points, and a plot where matplotlib is installed."""
    curves = {trained.model.label: trained.curve("ppl") for trained in trainings}
    updates = next(iter(curves.values())).updates
    for update in updates[:: max(len(updates) // 10, 1)]:
        found = {
            f"ppl {label}": curve.values[curve.updates.index(update)]
            for label, curve in curves.items()
            if update in curve.updates
        }
        context.report.row("curves", update=update, **found)
    if find_spec("matplotlib") is None:
        return
    from admin_nmt.analysis.plots import plot_curves

    model = trainings[0].model
    plot_curves(
        curves, context.output / "train" / "training.png", ylabel="training perplexity",
        title=f"{model.name}, D = {model.embed_dim}", log_scale=True,
    )  # fmt: skip


def run(context: Context) -> None:
    """Tables `models`, `curves` and `scores`, which come last: both trainings are of more worth."""
    data = data_folder(context)
    seconds = TRAINING_SHARE * context.seconds_left
    trainings: list[Trained] = []
    for init_type in ("admin", "default"):
        model = replace(size(context), init_type=init_type)
        if trainings:
            model = replace(model, updates=trainings[0].curve("ppl").updates[-1])
        folder = context.output / "train" / init_type
        try:
            trained = train(data, model, folder, context, seconds * (1.3 if trainings else 1.0))
            perplexity, speed = trained.curve("ppl"), trained.curve("wps").values
        except UserError as error:
            if not trainings:
                raise
            context.report.row("models", model=f"{model.label} {model.name}", note=str(error)[:200])
            continue
        trainings.append(trained)
        last = mean_of_last(perplexity.values)
        context.report.row(
            "models", model=f"{model.label} {model.name}", updates=perplexity.updates[-1],
            **{"tokens/s": round(mean_of_last(speed)), "training ppl": last},
        )  # fmt: skip
        if init_type == "admin":
            learnt = math.isfinite(last) and last < perplexity.values[0]
            context.report.check("checks", "ADMIN's perplexity falls", learnt)
    report_curves(context, trainings)
    for trained in trainings:
        name = f"{trained.model.label} {trained.model.name}"
        try:
            context.report.row("scores", model=name, **evaluate(data, trained, context))
        except UserError as error:
            context.report.fail(f"scores of {name}")
            context.report.row("scores", model=name, note=str(error)[:200])
