"""Peak memory of `admin-nmt prepare` on corpora of growing length: it must stay flat.

    python benchmarks/prepare_memory.py [--lines 100000 500000 2000000] [--workers N]

Each corpus has lines of five words from the same 20,000 words, because the table of distinct words
for BPE learning grows with the vocabulary by its nature; everything else must not grow at all. The
real program runs; the memory of it and all its child processes is sampled every 0.2 s. Shared pages
count once (proportional set size). fairseq-preprocess, the last step, is not ours and shown apart.
"""

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import parse, show

STEPS = ("tokenize", "learn_bpe", "apply_bpe", "binarize")
ADMIN_NMT = Path(sys.executable).parent / "admin-nmt"


def write_corpus(folder: Path, num_lines: int) -> None:
    """train.de and train.en with `num_lines` lines of five words."""
    rng = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(20_000)]
    for language in ("de", "en"):
        with (folder / f"train.{language}").open("w") as stream:
            for _ in range(num_lines):
                stream.write(" ".join(rng.choices(words, k=5)) + "\n")


def family(root: int) -> list[int]:
    """Process ids of `root` and all below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended since
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    members = {root}
    while found := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= found
    return sorted(members)


def memory(pids: list[int]) -> float:
    """Memory of several processes together in MiB."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def current_step(output: Path) -> str:
    """The first step that is not finished yet."""
    try:
        done = json.loads((output / "state.json").read_text())["steps"]
    except (OSError, ValueError):
        done = {}
    return next((step for step in STEPS if step not in done), STEPS[-1])


def measure(folder: Path, workers: int) -> tuple[dict[str, float], float]:
    """Peak MiB by step, and seconds."""
    output = folder / "out"
    command = [str(ADMIN_NMT), "prepare", "custom", "--trainpref", str(folder / "train")]
    command += ["--valid-every", "1000"]
    command += ["--source-lang", "de", "--target-lang", "en", "--bpe-tokens", "500"]
    command += ["--workers", str(workers), "--output", str(output)]
    peaks = dict.fromkeys(STEPS, 0.0)
    started = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        step = current_step(output)
        peaks[step] = max(peaks[step], memory(family(process.pid)))
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"prepare_memory.py: admin-nmt prepare failed with status {process.returncode}")
    return peaks, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, nargs="+", default=[100_000, 500_000, 2_000_000])
    parser.add_argument("--workers", type=int, default=2)
    args = parse(parser, lines=[2000], workers=1)
    rows = []
    for num_lines in args.lines:
        with tempfile.TemporaryDirectory() as name:
            write_corpus(Path(name), num_lines)
            peaks, seconds = measure(Path(name), args.workers)
        rows.append([num_lines, *(round(peaks[step]) for step in STEPS), round(seconds)])
        print(f"{num_lines} lines: done in {seconds:.0f} s", flush=True)
    show(args, ["pairs", *(f"{step}, MiB" for step in STEPS), "seconds"], rows)


if __name__ == "__main__":
    main()
