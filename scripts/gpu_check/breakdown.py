"""Where the time of a training step goes: the profiler's events sorted into classes."""

import json
import re
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

#: Classes by the names of kernels and of PyTorch's operations; the first pattern found decides.
#: Fused attention kernels have "cutlass" in their names too.
_PATTERNS = (
    ("copies", r"memcpy|memset"),
    ("loss", r"linear_loss|log_?softmax|nll_loss|cunn_SoftMax"),
    ("attention", r"flash|fmha|attention|attn|softmax"),
    ("GEMM", r"gemm|cublas|cutlass|nvjet|xmma|wgmma|splitk|matmul|aten::(b|add|badd)?b?mm\b"),
)
CLASSES = ("GEMM", "attention", "elementwise", "loss", "optimizer", "copies")
#: What fairseq's trainer calls its parts after the backward pass.
_OPTIMIZER_RANGES = ("reduce-grads", "multiply-grads", "clip-grads", "optimizer")
_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
STEP = "gpu_check step"


def class_of(name: str) -> str:
    """The class of a kernel or operation, by its name alone."""
    for label, pattern in _PATTERNS:
        if re.search(pattern, name, re.IGNORECASE):
            return label
    return "elementwise"


def breakdown(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Seconds by class, in `gaps` (the device has nothing to do) and in all, and `launches`.

    Args:
        events: those of a Chrome trace of PyTorch's profiler, with one range named `STEP`. Without
            events of a device, the time that operations spend in themselves on the CPU is taken.
    """
    events = [event for event in events if event.get("ph") == "X"]
    step = next(e for e in events if e["name"] == STEP and e.get("cat") == "user_annotation")
    ranges = sorted(
        (e["ts"], e["ts"] + e["dur"])
        for e in events
        if e.get("cat") == "user_annotation" and e["name"] in _OPTIMIZER_RANGES
    )
    launched = {
        e["args"]["correlation"]: e["ts"]
        for e in events
        if e.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in e.get("args", {})
    }
    work = [e for e in events if e.get("cat") in _DEVICE]
    if work:
        parts = [(e, launched.get(e["args"].get("correlation"), e["ts"]), e["dur"]) for e in work]
    else:
        work = [e for e in events if e.get("cat") == "cpu_op"]
        parts = [(e, e["ts"], own) for e, own in _own_times(work)]
    found = dict.fromkeys(CLASSES, 0.0)
    for event, start, duration in parts:
        label = "optimizer" if _inside(ranges, start) else class_of(event["name"])
        found[label] += duration / 1e6
    found["gaps"] = max(step["dur"] - _covered(work), 0.0) / 1e6
    return {**found, "all": step["dur"] / 1e6, "launches": len(work)}


def _inside(ranges: Sequence[tuple[float, float]], time: float) -> bool:
    place = bisect_right(ranges, (time, float("inf"))) - 1
    return place >= 0 and time <= ranges[place][1]


def _own_times(events: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], float]]:
    """Operations with their duration less that of the operations inside them, thread by thread."""
    own = [float(e["dur"]) for e in events]
    order = sorted(
        range(len(events)), key=lambda i: (events[i]["tid"], events[i]["ts"], -events[i]["dur"])
    )
    open_ones: list[int] = []
    for i in order:
        event = events[i]
        while open_ones:
            last = events[open_ones[-1]]
            if last["tid"] == event["tid"] and event["ts"] < last["ts"] + last["dur"]:
                own[open_ones[-1]] -= event["dur"]
                break
            open_ones.pop()
        open_ones.append(i)
    return [(event, max(seconds, 0.0)) for event, seconds in zip(events, own, strict=True)]


def _covered(events: Sequence[dict[str, Any]]) -> float:
    """Length of the union of all events."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted((e["ts"], e["ts"] + e["dur"]) for e in events):
        total += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    return total


def profiled(step: Callable[[], None], synchronize: Callable[[], None], cuda: bool) -> dict:
    """`breakdown` of one call of `step`."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    synchronize()
    with profile(activities=activities) as recorded, record_function(STEP):
        step()
        synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return breakdown(events)
