"""Which distributions are installed, and on what machine, for records and for advice."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: Distributions under which fairseq comes, all with the import name `fairseq`. `ve-fairseq` and
#: `fairseq-fixed` have the same code for translation.
FAIRSEQ = ("ve-fairseq", "fairseq-fixed", "fairseq")


def installed(distribution: str) -> str | None:
    """The version of a distribution, or None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def fairseq_builds() -> dict[str, str]:
    """Distribution -> version of each build of fairseq; more than one overwrite each other."""
    return {name: found for name in FAIRSEQ if (found := installed(name))}


def versions(distributions: Iterable[str]) -> dict[str, str | None]:
    """Distribution -> version or None; with every build of fairseq that there is."""
    return {name: installed(name) for name in distributions} | fairseq_builds()


def machine(device: str = "cpu") -> str:
    """Processor or card, PyTorch and Python, in one line; `device` is `cpu` or `cuda`."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if device == "cuda":
        name = torch.cuda.get_device_name()
    elif cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return f"{name}, torch {torch.__version__}, Python {platform.python_version()}"
