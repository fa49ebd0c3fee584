"""Which distributions are installed, for records and for advice."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

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
