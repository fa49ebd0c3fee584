"""Which distributions are installed, and on what machine, for records and for advice."""

import importlib
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from admin_nmt.errors import UserError

#: Distributions under which fairseq comes, all with the import name `fairseq`. `ve-fairseq` and
#: `fairseq-fixed` have the same code for translation.
FAIRSEQ = ("ve-fairseq", "fairseq-fixed", "fairseq")

#: Files with the memory that a Linux container may use: control groups of version 2 and of version 1.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def installed(distribution: str) -> str | None:
    """The version of a distribution, or None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def require_package(name: str, requirement: str, *attributes: str) -> Any:
    """The module of an optional package.

    Args:
        name: of the module.
        requirement: for pip.
        attributes: of the module, for those that load them when they are asked for.

    Raises:
        UserError: it is not installed, or does not load.
    """
    try:
        module = importlib.import_module(name)
        for attribute in attributes:
            getattr(module, attribute)
    except (ImportError, OSError, RuntimeError) as error:
        told = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UserError(
            f"{name} cannot be imported ({told[0]}); pip install '{requirement}'"
        ) from error
    return module


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


def memory_bytes() -> int:
    """Memory of this machine, or what the control group of a container allows if that is less; 0 where
    neither can be told."""
    found = []
    if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(getattr(os, "sysconf_names", {})):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in _LIMITS:
        text = limit.read_text().strip() if limit.is_file() else ""
        if text.isdigit():  # "max" without a limit
            found.append(int(text))
    return min(found, default=0)
