"""`admin-nmt doctor`: what this environment has, and what in it is known not to work."""

import argparse
import importlib.util
import os
import platform
import sys
from pathlib import Path

import admin_nmt_autoload
from admin_nmt.data.parallel import available_cores
from admin_nmt.installed import fairseq_builds, installed

HELP = "versions, device, optional libraries, and combinations that are known not to work"

#: Oldest versions that setup.py takes too, in case pip was told not to look.
OLDEST = {"torch": (2, 6), "numpy": (1, 26)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def _numbers(text: str) -> tuple[int, ...]:
    """(2, 13) of `2.13.0+cpu`."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def facts() -> dict[str, str]:
    """What the environment has, in the order in which it is printed; imports torch, not fairseq."""
    import torch

    import admin_nmt

    fairseq = [f"{name} {found}" for name, found in fairseq_builds().items()]
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return {
        "admin_nmt": f"{admin_nmt.__version__} in {Path(admin_nmt.__file__).parent}",
        "Python": f"{platform.python_version()} on {platform.platform()}",
        "fairseq": ", ".join(fairseq) or "not installed",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}",
        "numpy": installed("numpy") or "not installed",
        "device": ", ".join(gpus()) or f"CPU only ({available_cores()} cores)",
        "threads": f"{torch.get_num_threads()} (OMP_NUM_THREADS: {threads})",
        "bfloat16": "in hardware" if multiplies_bfloat16() else "emulated, slow",
        "NVIDIA apex": "yes" if apex() == "nvidia" else "no (not required)",
        "Triton": installed("triton") or "no",
        "CTranslate2": installed("ctranslate2") or "no (`admin-nmt export` needs it)",
        "SentencePiece": installed("sentencepiece")
        or "no (`admin-nmt prepare --subword sentencepiece` needs it)",
        "autoload": "on" if autoload() else "off: --user-dir admin_nmt or import admin_nmt",
    }


def gpus() -> list[str]:
    """Name and compute capability of each GPU."""
    import torch

    return [
        f"{torch.cuda.get_device_name(i)} (sm_{''.join(map(str, torch.cuda.get_device_capability(i)))})"
        for i in range(torch.cuda.device_count())
    ]


def multiplies_bfloat16() -> bool:
    """Whether the GPU, or without one the processor, multiplies bfloat16 itself."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch has no public question for processors.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def apex() -> str | None:
    """`nvidia`, `other` (PyPI's unrelated package) or None; imports neither."""
    spec = importlib.util.find_spec("apex")
    if spec is None:
        return None
    folders = spec.submodule_search_locations or []
    return (
        "nvidia" if any((Path(folder) / "optimizers").is_dir() for folder in folders) else "other"
    )


def autoload() -> bool:
    """Whether fairseq will find, or has found, this package by itself."""
    waiting = admin_nmt_autoload._AfterFairseq in sys.meta_path
    return waiting or "admin_nmt.registration" in sys.modules


def problems() -> list[str]:
    """Combinations that are known not to work, one line each with what to do."""
    found = []
    builds = list(fairseq_builds())
    if not builds:
        found.append(
            "fairseq is not installed: pip install ve-fairseq==0.12.3 (Python 3.11) or "
            "fairseq-fixed==0.12.3.1"
        )
    if len(builds) > 1:
        found.append(f"{' and '.join(builds)} overwrite each other's files: keep one of them")
    if "fairseq" in builds and sys.version_info >= (3, 11):
        found.append(
            "fairseq 0.12 of its authors cannot be imported on Python 3.11 and newer: use ve-fairseq or fairseq-fixed"
        )
    for name, oldest in OLDEST.items():
        present = installed(name)
        if present and _numbers(present) < oldest:
            found.append(f"{name} {present} is older than {'.'.join(map(str, oldest))}")
    if apex() == "other":
        found.append(
            "`apex` is not NVIDIA's (PyPI has an unrelated package of that name): pip uninstall apex"
        )
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") == "1":
        found.append(
            "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 lets a checkpoint run any code; nothing here needs it"
        )
    return found


def run(args: argparse.Namespace) -> int:
    """Print both; 1 if there are problems."""
    table = facts()
    width = max(map(len, table))
    for name, value in table.items():
        sys.stdout.write(f"{name:{width}}  {value}\n")
    wrong = problems()
    for line in wrong:
        sys.stdout.write(f"problem: {line}\n")
    if not wrong:
        sys.stdout.write("no known problems\n")
    return 1 if wrong else 0
