"""Sentences per second: `fairseq-generate` against the exported folder, and what folding saves.

    python benchmarks/translate_speed.py CKPT DATA [--quantization float32 int8] [--rounds 3] [--threads 2]

CKPT is an `admin_transformer`, DATA the folder of `admin-nmt prepare` it was trained on. All systems
translate the same test set with the same beam, one after the other in every round:

    fairseq-generate          the checkpoint
    fairseq-generate, folded  its folded form in our layers: the same without omegas
    fairseq-generate, stock   its folded form as fairseq's own `transformer`
    admin-nmt translate       its exported folder, from raw text to raw text

Seconds of fairseq-generate, which runs in this process, follow from the sentences per second that it
prints, for search alone, without start and text;
those of the exported folder include tokenisation, BPE and their undoing. Printed are medians over
the rounds, the ratio to the first row, BLEU of the detokenised output, and how many translations
are those of the first row. Below: CPU seconds of one forward pass over the test set with the
references given (no search), models in turn on every batch.
"""

import argparse
import contextlib
import io
import logging
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from common import parse, show
from sacrebleu.metrics import BLEU

import admin_nmt  # noqa: F401
from admin_nmt.checkpoints import Checkpoint
from admin_nmt.evaluation.decoding import SearchOptions
from admin_nmt.evaluation.generation import generate_arguments
from admin_nmt.evaluation.text import read_lines
from admin_nmt.export import export_bundle, fold, load_translator
from admin_nmt.export.text import Text, data_folder, load_text
from admin_nmt.export.translator import Translator

#: Seconds of one run, and its raw translations.
Run = tuple[float, list[str]]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", metavar="CKPT")
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--subset", default="test")
    parser.add_argument("--quantization", nargs="+", default=["float32", "int8"])
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=12000, help="of fairseq-generate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--skip-folded", action="store_true", help="leave out what folding saves in PyTorch"
    )
    return parse(parser, quantization=["float32"], beam=1, max_tokens=200, rounds=1, threads=1)


@contextlib.contextmanager
def messages_of(name: str, stream: io.StringIO) -> Iterator[None]:
    """Inside, what this logger says goes to `stream` too."""
    logger, handler = logging.getLogger(name), logging.StreamHandler(stream)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logging.disable(logging.NOTSET)
    try:
        yield
    finally:
        logging.disable(logging.INFO)
        logger.setLevel(level)
        logger.removeHandler(handler)


def fairseq_generate(path: Path, args: argparse.Namespace, text: Text) -> Run:
    """What the program does, in this process; seconds are those it reports."""
    from fairseq import options as fairseq_options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq_cli.generate import _main

    options = SearchOptions(beam=args.beam, max_tokens=args.max_tokens, cpu=True)
    languages = text.source_lang, text.target_lang
    words = generate_arguments(data_folder(args.data), str(path), args.subset, *languages, options)
    parser = fairseq_options.get_generation_parser()
    cfg = convert_namespace_to_omegaconf(fairseq_options.parse_args_and_arch(parser, words))
    said = io.StringIO()
    with messages_of("fairseq_cli.generate", said):
        _main(cfg, said)
    rate = re.search(r"\(([\d.]+) sentences/s", said.getvalue())
    found = re.findall(r"^H-(\d+)\t[^\t]*\t(.*)$", said.getvalue(), re.MULTILINE)
    assert rate is not None
    output = [line for _, line in sorted((int(number), line) for number, line in found)]
    return len(output) / float(rate[1]), [text.pipeline.decode(line) for line in output]


def exported(translator: Translator, args: argparse.Namespace, lines: list[str]) -> Run:
    """Raw text to raw text."""
    start = time.perf_counter()
    found = translator.translate(lines, beam=args.beam)
    return time.perf_counter() - start, found


def folded_checkpoints(checkpoint: str, folder: Path) -> dict[str, Path]:
    """The folded model as `admin_transformer` without omegas, and as fairseq's `transformer`."""
    folded, _ = fold(Checkpoint.open(checkpoint))
    stock, ours = folder / "stock.pt", folder / "folded.pt"
    folded.save(stock)
    names = dict.fromkeys(("arch", "_name"), "admin_transformer")
    folded.replaced(folded.weights, names | {"init_type": "default"}).save(ours)
    return {"fairseq-generate, folded": ours, "fairseq-generate, stock": stock}


def forward_costs(
    models: dict[str, Any], batches: list[dict[str, torch.Tensor]], rounds: int
) -> list[list[Any]]:
    """Name, CPU seconds of all batches, ratio of the first model's; models in turn on every batch.

    CPU seconds of all threads, and medians over the batches of the ratio: other programs that run
    beside this one disturb both less than seconds on the clock.
    """
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        for number in range(rounds + 1):  # the first warms the caches
            for batch in batches:
                for name, model in models.items():
                    start = time.process_time()
                    model(**batch)
                    if number:
                        seconds[name].append(time.process_time() - start)
    base = next(iter(seconds.values()))
    return [
        [name, sum(times) / rounds,
         statistics.median(a / b for a, b in zip(base, times, strict=True))]
        for name, times in seconds.items()
    ]  # fmt: skip


def forward_table(args: argparse.Namespace, text: Text, paths: dict[str, Path]) -> list[list[Any]]:
    """Forward passes over the test set in batches of a tenth of `--max-tokens`."""
    from fairseq import checkpoint_utils

    models = {}
    for name, path in paths.items():
        (model,), _, task = checkpoint_utils.load_model_ensemble_and_task(
            [str(path)],
            arg_overrides={
                "data": str(data_folder(args.data)),
                "source_lang": text.source_lang,
                "target_lang": text.target_lang,
            },
        )
        models[name] = model.eval()
    task.load_dataset(args.subset)
    dataset = task.dataset(args.subset)
    iterator = task.get_batch_iterator(dataset, max_tokens=max(args.max_tokens // 10, 200))
    batches = [batch["net_input"] for batch in iterator.next_epoch_itr(shuffle=False)]
    return forward_costs(models, batches, args.rounds)


def main() -> None:
    """Measure all systems round by round and print the tables."""
    args = parse_arguments()
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    text = load_text(args.data, Checkpoint.open(args.checkpoint).languages)
    raw = data_folder(args.data) / "raw" / args.subset
    lines, reference = (
        read_lines(f"{raw}.{lang}") for lang in (text.source_lang, text.target_lang)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {"fairseq-generate": Path(args.checkpoint)}
        if not args.skip_folded:
            paths |= folded_checkpoints(args.checkpoint, folder)
        systems: dict[str, Callable[[], Run]] = {
            system: lambda path=path: fairseq_generate(path, args, text)  # type: ignore[misc]
            for system, path in paths.items()
        }
        for quantization in args.quantization:
            export_bundle(
                args.checkpoint, args.data, folder / quantization, quantization=quantization
            )
            translator = load_translator(folder / quantization, threads=args.threads)
            systems[f"admin-nmt translate, {quantization}"] = (
                lambda translator=translator: exported(translator, args, lines)  # type: ignore[misc]
            )
        runs: dict[str, list[Run]] = {system: [] for system in systems}
        for _ in range(args.rounds):
            for system, run in systems.items():
                runs[system].append(run())
        print_runs(args, runs, reference)
        if not args.skip_folded:
            rows = forward_table(args, text, paths)
            show(args, ["forward pass", "CPU s", "ratio"], rows)


def print_runs(args: argparse.Namespace, runs: dict[str, list[Run]], reference: list[str]) -> None:
    """Speed and quality of every system."""
    first = next(iter(runs.values()))
    base = statistics.median(seconds for seconds, _ in first)
    rows = []
    for system, found in runs.items():
        seconds = statistics.median(seconds for seconds, _ in found)
        output = found[0][1]
        bleu = BLEU().corpus_score(output, [reference]).score
        same = sum(a == b for a, b in zip(output, first[0][1], strict=True))
        rows.append([system, len(output) / seconds, base / seconds, bleu, same])
    note = (
        f"{len(reference)} sentences, beam {args.beam}, {args.threads} threads, "
        f"medians of {args.rounds} rounds"
    )
    show(args, ["system", "sentences/s", "ratio", "BLEU", "same"], rows, floatfmt=".2f", note=note)


if __name__ == "__main__":
    main()
