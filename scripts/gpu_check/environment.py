"""Stage `environment`: the card, the versions, and what the card does at best."""

import os
import platform
import shutil
import subprocess

import torch

from admin_nmt.installed import installed
from gpu_check import rates
from gpu_check.stage import Context

PACKAGES = (
    "admin-nmt", "ve-fairseq", "fairseq-fixed", "torch", "triton", "numpy", "hydra-core", "omegaconf",
    "sacrebleu", "ctranslate2", "apex",
)  # fmt: skip


def driver() -> str:
    """The first card's name, driver and memory as nvidia-smi says them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "no nvidia-smi"
    query = ["--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"]
    try:
        result = subprocess.run([program, *query], capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "nvidia-smi has not answered in 30 s"
    return result.stdout.strip() or f"nvidia-smi failed: {result.stderr.strip()[:200]}"


def run(context: Context) -> None:
    """Two tables: `versions`, and `rates` in Tflop/s, TB/s and microseconds."""
    report = context.report
    report.row("versions", name="python", version=platform.python_version())
    report.row("versions", name="processor", version=f"{os.cpu_count()} x {platform.machine()}")
    for package in PACKAGES:
        report.row("versions", name=package, version=installed(package) or "missing")
    if context.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        report.row("versions", name="card", version=properties.name)
        report.row("versions", name="compute capability", version=f"{properties.major}.{properties.minor}")  # fmt: skip
        report.row("versions", name="multiprocessors", version=str(properties.multi_processor_count))  # fmt: skip
        report.row("versions", name="CUDA of PyTorch", version=str(torch.version.cuda))
        report.row("versions", name="nvidia-smi", version=driver())
    found = rates.measure(context.device, context.smoke)
    for name, value in found.items():
        if name == "launch":
            report.row("rates", what="one small operation", value=1e6 * value, unit="us")
        else:
            unit = "TB/s" if name == "copy" else "TFLOP/s"
            report.row("rates", what=name, value=value / 1e12, unit=unit)
