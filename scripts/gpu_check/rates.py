"""What this device does at best: matrix products, copies, launches."""

import statistics
from collections.abc import Callable

import torch
from common import clock
from torch import Tensor


def median_seconds(function: Callable[[], object], device: str, repeats: int, inner: int) -> float:
    """Median over `repeats` of the seconds of one call, `inner` calls between looks at the clock."""
    for _ in range(2):
        function()
    times = []
    for _ in range(repeats):
        start = clock(device)
        for _ in range(inner):
            function()
        times.append((clock(device) - start) / inner)
    return statistics.median(times)


def matmul_rate(device: str, dtype: torch.dtype, m: int, n: int, k: int) -> float:
    """Floating-point operations a second of (m, k) x (k, n), on random data."""
    a, b = (torch.randn(shape, device=device, dtype=dtype) for shape in ((m, k), (k, n)))
    out: Tensor = torch.empty((m, n), device=device, dtype=dtype)
    seconds = median_seconds(lambda: torch.mm(a, b, out=out), device, 5, 10)
    return 2.0 * m * n * k / seconds


def copy_rate(device: str, num_bytes: int) -> float:
    """Bytes read and written a second by a copy of `num_bytes` on the device."""
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * num_bytes / median_seconds(lambda: target.copy_(source), device, 5, 5)


def launch_seconds(device: str) -> float:
    """Seconds that the host needs for one small operation of PyTorch."""
    x = torch.zeros(16, device=device)
    return median_seconds(lambda: x.add_(1.0), device, 5, 500)


def measure(device: str, smoke: bool) -> dict[str, float]:
    """`matmul` (flop/s, by type), `copy` (bytes/s) and `launch` (s)."""
    size = 128 if smoke else 8192
    types = [torch.float32] if smoke else [torch.bfloat16, torch.float16, torch.float32]
    found = {f"matmul {str(t)[6:]}": matmul_rate(device, t, size, size, size) for t in types}
    found["copy"] = copy_rate(device, 1 << (16 if smoke else 30))
    found["launch"] = launch_seconds(device)
    return found
