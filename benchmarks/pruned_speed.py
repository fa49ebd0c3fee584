"""A model with half of its heads removed against the whole model: one process, interleaved.

    python benchmarks/pruned_speed.py [--fraction 0.5] [--dim 512] [--layers 6] [--threads 2]

Random weights and random sentences, because speed does not depend on them; heads go in random order
over all three kinds. Printed are medians and ratios (above 1: the pruned model is faster) of the
encoder's forward pass and of greedy decoding by batch size (the paper's table 4), and of a training
step (our label-smoothed cross-entropy, Adam); and the parameter count against the one on paper. The
last line compares one pass for head importance with a training step of the whole model over the same
batch.
"""

import argparse
import logging
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from common import add_cpu_time, clock_of, interleaved, medians, parse, show

import admin_nmt  # noqa: F401
from admin_nmt.pruning.measuring import gate_gradients
from admin_nmt.pruning.policies import choose, global_budget, random_order
from admin_nmt.pruning.removal import parameters_per_head, remove_heads

VOCABULARY = 8000


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fraction", type=float, default=0.5, help="of all heads")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--layers", type=int, default=6, help="of each stack")
    parser.add_argument("--sentences", type=int, default=64, help="in a batch of training")
    parser.add_argument(
        "--batch-sizes",
        type=int,
        nargs="+",
        default=[1, 4, 16, 64],
        metavar="N",
        help="sentences in a batch of the encoder and of decoding (default: %(default)s)",
    )
    parser.add_argument("--length", type=int, default=32, help="tokens of a sentence")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    add_cpu_time(parser)
    return parse(
        parser,
        dim=16,
        heads=2,
        layers=1,
        sentences=4,
        batch_sizes=[1, 2],
        length=4,
        rounds=2,
        threads=1,
    )


def build(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """A task over an artificial vocabulary, the whole model and the pruned one."""
    from fairseq.data import Dictionary
    from fairseq.models import build_model
    from fairseq.tasks.translation import TranslationConfig, TranslationTask

    dictionary = Dictionary()
    for number in range(VOCABULARY - dictionary.nspecial):
        dictionary.add_symbol(f"w{number}")
    config = TranslationConfig(source_lang="a", target_lang="b")
    task = TranslationTask(config, dictionary, dictionary)
    sizes = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (
            ("layers", args.layers),
            ("embed_dim", args.dim),
            ("ffn_embed_dim", 4 * args.dim),
            ("attention_heads", args.heads),
        )
    }
    settings = Namespace(
        arch="admin_transformer",
        init_type="default",
        share_all_embeddings=True,
        dropout=0.1,
        **sizes,
    )
    torch.manual_seed(1)
    whole: Any = build_model(settings, task)
    layout = whole.cfg.layout
    order = random_order(layout, 1)
    removed = choose(order, layout, global_budget(layout, args.fraction))
    state, text = remove_heads(whole.state_dict(), whole.cfg, removed)
    settings.heads_per_layer = text
    pruned: Any = build_model(settings, task)
    pruned.load_state_dict(state)
    saved = len(removed) * parameters_per_head(args.dim, args.dim // args.heads)
    counts = [sum(p.numel() for p in model.parameters()) for model in (whole, pruned)]
    print(f"{len(removed)} of {len(order)} heads removed: {text}")
    print(
        f"parameters {counts[0]:,} -> {counts[1]:,}; on paper {counts[0] - saved:,}: "
        f"{'equal' if counts[1] == counts[0] - saved else 'NOT EQUAL'}"
    )
    return task, whole, pruned


def random_batch(args: argparse.Namespace, task: Any, sentences: int) -> dict[str, Any]:
    """A fairseq batch of sentences of equal length."""
    dictionary = task.source_dictionary
    shape = (sentences, args.length)
    source = torch.randint(dictionary.nspecial, len(dictionary), shape)
    target = torch.randint(dictionary.nspecial, len(dictionary), shape)
    target[:, -1] = dictionary.eos()
    previous = target.roll(1, dims=1)
    net_input = {
        "src_tokens": source,
        "src_lengths": torch.full((sentences,), args.length),
        "prev_output_tokens": previous,
    }
    return {"net_input": net_input, "target": target, "ntokens": target.numel()}


#: What is measured; the number of the round does not matter.
Run = Callable[[int], None]


def seconds(runs: list[Run], args: argparse.Namespace) -> list[float]:
    """Median seconds of each, after one round of warming up."""
    clock = clock_of(args)
    return medians(interleaved(runs, args.rounds, 1, clock))


def encode(model: Any, batch: dict[str, Any]) -> Run:
    """A forward pass of the encoder."""

    def run(_: int) -> None:
        model.eval()
        with torch.no_grad():
            model.encoder(batch["net_input"]["src_tokens"], batch["net_input"]["src_lengths"])

    return run


def train(task: Any, model: Any, batch: dict[str, Any]) -> Run:
    """A whole update with Adam."""
    from admin_nmt.criterions.label_smoothed_cross_entropy import (
        AdminLabelSmoothedCrossEntropyCriterion,
    )

    criterion = AdminLabelSmoothedCrossEntropyCriterion(task, False, 0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)

    def run(_: int) -> None:
        model.train()
        optimizer.zero_grad()
        loss, sample_size, _ = criterion(model, batch)
        (loss / sample_size).backward()
        optimizer.step()

    return run


def decode(task: Any, model: Any, batch: dict[str, Any], length: int) -> Run:
    """Greedy translation into exactly `length` tokens a sentence."""
    generator = task.build_generator(
        [model], Namespace(beam=1, max_len_a=0, max_len_b=length, min_len=length)
    )

    def run(_: int) -> None:
        model.eval()
        generator.generate([model], batch)

    return run


def importance(model: Any, batch: dict[str, Any]) -> Run:
    """One pass over gates, as `admin-nmt importance` makes it."""

    def run(_: int) -> None:
        model.eval().requires_grad_(False)
        gate_gradients(model, batch)
        model.requires_grad_(True)

    return run


def main() -> None:
    """Measure and print."""
    args = parse_arguments()
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    task, whole, pruned = build(args)
    batch, models = random_batch(args, task, args.sentences), (whole, pruned)
    batches = {size: random_batch(args, task, size) for size in args.batch_sizes}
    measured = {
        **{f"encoder, batch {n}": [encode(m, b) for m in models] for n, b in batches.items()},
        **{
            f"decoding, batch {n}": [decode(task, m, b, args.length) for m in models]
            for n, b in batches.items()
        },
        f"training step, batch {args.sentences}": [train(task, m, batch) for m in models],
    }
    rows = []
    for name, runs in measured.items():
        before, after = seconds(runs, args)
        rows.append([name, before, after, before / after])
    step, gates = seconds([train(task, whole, batch), importance(whole, batch)], args)
    rows.append(["importance (not training)", step, gates, step / gates])
    note = f"sentences of {args.length} tokens, {args.threads} threads, medians of {args.rounds}"
    show(args, ["", "whole s", "pruned s", "ratio"], rows, note=note)


if __name__ == "__main__":
    main()
