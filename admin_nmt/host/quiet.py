"""The warnings that every fairseq command begins with, which its user can do nothing about.

fairseq 0.12 calls Hydra and PyTorch in ways that both have deprecated since. Each of these warnings
is left out by its text and the module that it comes from, and only in fairseq's programs and
`admin-nmt`; a program that imports fairseq keeps its own. `ADMIN_NMT_WARNINGS=1` shows them all, and
so does Python's `-W default` (or `PYTHONWARNINGS`), because these filters come after the user's.

One of fairseq 0.12.3's modules configures Python's logging on import, before `fairseq-generate` and
others do: lines lose their times, every library may debug, and `LOGLEVEL` says nothing. In fairseq's
programs that configuration is fairseq's own again.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from admin_nmt.host.patch import Addition, Scope, topics_left_out

#: Beginning of the text (a regular expression), category, module that it is attributed to.
WARNINGS: tuple[tuple[str, type[Warning], str], ...] = (
    (r"hydra\.experimental\.\w+\(\) is no longer experimental", UserWarning, r"hydra\."),
    (r"\s*The version_base parameter is not specified", UserWarning, r"hydra\.|fairseq"),
    (r"\s*The strict flag in the compose API is deprecated", UserWarning, r"hydra\."),
    (r"In '.*': Usage of deprecated keyword in package header", UserWarning, r"hydra\."),
    # Hydra attributes this one to a distant caller: the program itself, one of our modules that
    # opened a checkpoint, or beyond the program what Python calls "sys".
    (
        r"\s*'.*' is validated against ConfigStore schema with the same name",
        UserWarning,
        r"(sys|__main__|admin_nmt\..*)$",
    ),
    (r"`torch\.cuda\.amp\.\w+\(args\.\.\.\)` is deprecated", FutureWarning, r"fairseq"),
    # fairseq asks for pinned memory also on the CPU, and for one worker on whatever machine.
    (
        r"'pin_memory' argument is set as true but no accelerator",
        UserWarning,
        r"torch\.utils\.data",
    ),
    (r"This DataLoader will create \d+ worker process", UserWarning, r"torch\.utils\.data"),
)
#: Logger -> beginnings of lines that fairseq logs in every program.
LOG_LINES: dict[str, tuple[str, ...]] = {
    "fairseq.tasks.text_to_speech": ("Please install tensorboardX",)
}
#: The same of `fairseq-interactive`, which makes a data set of every few lines that it is given;
#: a training logs them once an epoch.
INTERACTIVE_LINES: dict[str, tuple[str, ...]] = {
    "fairseq.tasks.fairseq_task": (
        "can_reuse_epoch_itr = ",
        "reuse_dataloader = ",
        "rebuild_batches = ",
        "creating new batches for epoch ",
    )
}


def _filters() -> list[tuple]:
    """`WARNINGS` as Python keeps them in `warnings.filters`."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for message, category, module in WARNINGS:
            warnings.filterwarnings("ignore", message, category, module, append=True)
        return list(warnings.filters)


def _is_wanted(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith((LOG_LINES | INTERACTIVE_LINES)[record.name])


def install() -> Callable[[], None]:
    """Leave out `WARNINGS` and `LOG_LINES`, unless `ADMIN_NMT_WARNINGS=1`; returns what shows them again."""
    if os.environ.get("ADMIN_NMT_WARNINGS") == "1":
        return lambda: None
    for message, category, module in WARNINGS:
        warnings.filterwarnings("ignore", message, category, module, append=True)
    names = [*LOG_LINES, *(INTERACTIVE_LINES if _program() == "interactive" else ())]
    loggers = [logging.getLogger(name) for name in names]
    for logger in loggers:
        logger.addFilter(_is_wanted)

    def restore() -> None:
        ours = _filters()
        warnings.filters[:] = [item for item in warnings.filters if item not in ours]  # type: ignore[index]
        for logger in loggers:
            logger.removeFilter(_is_wanted)

    return restore


def _program() -> str | None:
    """Which of fairseq's programs this process is: `train`, `generate`, ... (also as
    `python -m fairseq_cli.train`); None if it is none."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    if program.parent.name == "fairseq_cli":
        return program.stem
    return program.name.removeprefix("fairseq-") if program.name.startswith("fairseq-") else None


def in_fairseq_program() -> bool:
    """Whether this process is one of fairseq's programs."""
    return _program() is not None


def configure_logging(handlers: list[logging.Handler] | None = None) -> None:
    """As fairseq's programs do it; without effect where it was done before. Lines go to stderr."""
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=os.environ.get("LOGLEVEL", "INFO").upper(),
        handlers=handlers,
    )


def install_early() -> None:
    """`install` while fairseq is still being imported, which logs a line already, and configures logging.

    `ADMIN_NMT_WITHOUT=quiet` is respected here, because the table of changes is read later.
    """
    if in_fairseq_program() and "quiet" not in topics_left_out():
        install()
        configure_logging()


def _register() -> Callable[[], None]:
    """Deprecation warnings of Hydra and PyTorch, advice to install tensorboardX, libraries' debugging, and
    four lines before each translation of `fairseq-interactive` are left out in fairseq's own programs
    (`ADMIN_NMT_WARNINGS=1` shows all but the debugging), whose log lines have their times again.
    """
    return install() if in_fairseq_program() else lambda: None


PATCHES = (Addition("warnings.filters", _register, Scope.ALL),)
