"""Stage `decode`: sentences a second of `fairseq-generate`, our model against fairseq's own.

Both have the same weights: those that the stage `train` left of the same data, and their folded form,
which is a checkpoint of fairseq's `transformer`. Without them a small model is trained for a moment; its
translations are as long as the limit allows.
"""

import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from statistics import median

from admin_nmt.checkpoints import Checkpoint
from admin_nmt.errors import UserError
from admin_nmt.evaluation.decoding import SearchOptions
from admin_nmt.evaluation.generation import generate_command
from gpu_check import train
from gpu_check.data import data_folder
from gpu_check.stage import Context
from trainings import BIN, Model
from trainings import run as run_program


def checkpoint(context: Context, data: Path) -> tuple[Path, bool]:
    """A checkpoint of our model on `data`, and whether it was trained for more than a moment."""
    folder = context.output / "train" / "admin"
    found = folder / "checkpoints" / "checkpoint_last.pt"
    if found.exists() and train.is_of(folder, data):
        return found, True
    shape = ((2, 1), 32) if context.smoke else ((6, 6), 512)
    model = Model(*shape, max_tokens=300 if context.smoke else 4096, updates=30, lr=5e-4, warmup=30)
    folder = context.output / "small"
    trained = train.train(data, model, folder, context, context.seconds_left / 3)
    return trained.checkpoint, False


def folded(context: Context, path: Path) -> Path:
    """The same weights as fairseq's own `transformer`."""
    output = context.output / "folded.pt"
    command = [BIN / "admin-nmt", "fold", path, "--output", output, "--force"]
    run_program(command, context.output / "fold.log")
    return output


def generate(context: Context, data: Path, path: Path, known: bool) -> tuple[float, float]:
    """Sentences and tokens a second, as fairseq counts them: the search alone.

    Raises:
        UserError: fairseq failed.
    """
    cpu = context.device == "cpu"
    source, target = Checkpoint.open(path).languages
    options = SearchOptions(beam=5, max_tokens=12000, cpu=cpu, fp16=not cpu)
    command = generate_command(data, str(path), "test", source or "", target or "", options)
    limits = [] if known else ["--max-len-a", "0", "--max-len-b", "12" if context.smoke else "30"]
    log = context.output / "generate.log"
    run_program([*command, *limits], log)
    line = r"Translated .*\(([\d.]+) sentences/s, ([\d.]+) tokens/s\)"
    found = re.findall(line, log.read_text(encoding="utf-8"))
    if not found:
        raise UserError(f"fairseq-generate told no rate, see {log}")
    sentences, tokens = found[-1]
    return float(sentences), float(tokens)


def run(context: Context) -> None:
    """Tables `runs`, rounds in turn, and `fairseq-generate`, their medians. A model that fails does not
    keep the other one from being measured."""
    data = data_folder(context)
    ours, known = checkpoint(context, data)
    paths: dict[str, Callable[[], Path]] = {
        "fairseq": cache(partial(folded, context, ours)), "ours": lambda: ours
    }  # fmt: skip
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    rounds = 1 if context.smoke else 3
    for number in range(rounds):
        if number and context.seconds_left < 20:
            break
        for name, path in [*paths.items()]:
            try:
                sentences, tokens = generate(context, data, path(), known)
            except UserError as error:
                del paths[name]
                context.report.fail(name)
                context.report.row("runs", model=name, note=str(error)[:200])
                continue
            found[name].append((sentences, tokens))
            context.report.row("runs", model=name, **{"sentences/s": sentences, "tokens/s": tokens})
    medians = {
        name: [median(column) for column in zip(*rates, strict=True)]
        for name, rates in found.items()
        if rates
    }
    for name, (sentences, tokens) in medians.items():
        context.report.row(
            "fairseq-generate", model=name, rounds=len(found[name]),
            **{"sentences/s": sentences, "tokens/s": tokens},
            ratio=sentences / medians["fairseq"][0] if "fairseq" in medians else "",
            note="" if known else "untrained: limited length",
        )  # fmt: skip
