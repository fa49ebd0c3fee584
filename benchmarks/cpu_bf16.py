"""Forward and backward on the CPU in float32 and bfloat16, without and with R-Drop; interleaved.

    python benchmarks/cpu_bf16.py DATA [--shape 2-2-256] [--max-tokens 1500]

Every batch is computed twice and the second time counts: batches come back in every epoch, and
oneDNN builds its bfloat16 kernels for each shape when it first comes. `--cold` counts the first time.
"""

import argparse
import logging
import os

# Read by oneDNN when it builds its first kernel: room for those of all batches.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "40000")

import torch
from common import batches, build, interleaved, medians, parse, parse_shapes, shape_name, show

CRITERIONS = {
    "label smoothing": ("admin_label_smoothed_cross_entropy",),
    "R-Drop": ("label_smoothed_cross_entropy_rdrop", "--rdrop-alpha", "5"),
}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder made by fairseq-preprocess")
    parser.add_argument("--shape", nargs="+", default=["2-2-256"], metavar="ENC-DEC-DIM")
    parser.add_argument("--max-tokens", type=int, default=1500)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cold", action="store_true")
    return parse(parser, shape=["1-1-16"], max_tokens=100, batches=2, threads=1)


def main() -> None:
    """Measure and print."""
    args = parse_arguments()
    logging.disable(logging.INFO)
    torch.set_num_threads(args.threads)
    rows = []
    for shape in parse_shapes(args.shape):
        for name, options in CRITERIONS.items():
            models = []
            for dtype in (torch.float32, torch.bfloat16):
                task, model, criterion = build(
                    args.data, shape, "--arch", "admin_transformer", "--criterion", *options
                )
                models.append((model.to(dtype), criterion))
            samples = batches(task, args.max_tokens, args.batches)

            def step(number: int, which: int, models=models, samples=samples) -> None:
                model, criterion = models[which]
                model.zero_grad()
                criterion(model, samples[number % len(samples)])[0].backward()

            runs = [lambda number, i=i, step=step: step(number, i) for i in (0, 1)]
            warm_up = 0 if args.cold else args.batches
            single, half = medians(interleaved(runs, args.batches, warm_up))
            rows.append([shape_name(shape), name, single, half, single / half])
    headers = ["shape", "criterion", "float32, s", "bfloat16, s", "ratio"]
    show(args, headers, rows)


if __name__ == "__main__":
    main()
