"""Training that stops before the end of its data exits cleanly."""

import os
import subprocess
import sys
from pathlib import Path

# A thread that is still collating when Python exits aborts the process ("terminate called without
# an active exception", exit code 134); the queue is unbounded so that it never rests.
SCRIPT = """
import torch
import admin_nmt
from fairseq.data.iterators import BufferedIterator

class Batches:
    def __len__(self):
        return 10**9
    def __iter__(self):
        while True:
            batch = torch.zeros(8, 5, dtype=torch.long)
            for row in range(8):
                batch[row].copy_(torch.arange(5))
            yield batch

# Without a bound, and blocked on a full queue.
both = [BufferedIterator(size, Batches()) for size in (0, 2)]
for batches in both:
    next(batches)
"""


def test_reading_ahead_ends_with_the_program(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, (result.returncode, result.stderr[-500:])
